// Chunks from one width to a narrower one, inside a layer's arena, or back to 16 bits to be continued. One thread two tokens of
// a (job, K or V, group): the least and the greatest of a token's elements give its offset and scale.
#import shared/step
#import shared/kv_any

struct QuantParams {
    kept: u32,              // KV groups that are written: a prefix
    groups: u32,            // groups a chunk has room for
    head_dim: u32,
    centres: u32,           // piece of the arena where the centres of keys begin; 0: none
}
@group(0) @binding(1) var<uniform> params: QuantParams;
@group(0) @binding(2) var<storage, read> jobs: array<vec4<u32>>;        // from, to: width << 28 | place; number of the chunk, its tokens
@group(0) @binding(3) var<storage, read_write> pages: array<u32>;       // the layer's arena

fn piece(i: u32) -> vec4<u32> {
    return vec4<u32>(pages[4u * i], pages[4u * i + 1u], pages[4u * i + 2u], pages[4u * i + 3u]);
}

override CENTRES: u32 = 0u;

// `turn`: what is done with the centre, -1 where it is taken off, 1 where it is put back. Behind its `tokens` a page has what was
// there before, perhaps somebody else's: nothing of it is copied.
struct Source { width: u32, at: u32, value: bool, centre: u32, turn: f32, tokens: u32 }

// Four elements of token t, whose scale and offset are `m`.
fn source(s: Source, t: u32, quad: u32, m: vec2<f32>) -> vec4<f32> {
    if (t >= s.tokens) { return vec4<f32>(0.0); }
    let offset = vec4<f32>(m.y);
    if (s.value) { return value_quad(s.width, s.at, t, quad, params.head_dim / 8u) * m.x + offset; }
    let e = key_quad(s.width, s.at, t, quad) * m.x + offset;
    // From one quantised width to another it stays off.
    if (CENTRES == 0u || s.turn == 0.0) { return e; }
    let u = piece(s.centre + quad / 2u);
    return e + s.turn * halves4(select(u.xy, u.zw, (quad & 1u) == 1u));
}

// An octet as the forward pass writes it.
fn widened(s: Source, to: u32, t: u32, o: u32, octets: u32, m: vec2<f32>) {
    let lo = source(s, t, 2u * o, m);
    let hi = source(s, t, 2u * o + 1u, m);
    let at = 4u * (to + select(16u * o + t, t * octets + o, s.value));
    pages[at] = pack2x16float(lo.xy);
    pages[at + 1u] = pack2x16float(lo.zw);
    pages[at + 2u] = pack2x16float(hi.xy);
    pages[at + 3u] = pack2x16float(hi.zw);
}

// Four elements as integers below 2^bits, packed from bit 0 on.
fn packed(e: vec4<f32>, m: vec2<f32>, bits: u32) -> u32 {
    let most = f32((1u << bits) - 1u);
    let inverse = select(0.0, 1.0 / m.x, m.x > 0.0);
    let n = vec4<u32>(clamp(round((e - vec4<f32>(m.y)) * inverse), vec4<f32>(0.0), vec4<f32>(most)));
    return n.x | (n.y << bits) | (n.z << (2u * bits)) | (n.w << (3u * bits));
}

@compute @workgroup_size(64)
fn kv_quant(@builtin(global_invocation_id) gid: vec3<u32>) {
    let pair = gid.x % 8u;
    let plane = gid.x / 8u;
    let value = plane / params.kept;
    let group = plane % params.kept;
    if (value >= 2u || gid.y >= step.jobs) { return; }
    let job = jobs[gid.y];
    let from_width = width_of(job.x);
    let to_width = width_of(job.y);
    let first = plane_at(job.x, value, group, params.groups, params.head_dim);
    let centre = centre_at(CENTRES, job.z, group, params.groups, params.head_dim / 8u, 0u);
    let turn = select(0.0, -1.0, from_width == W16) + select(0.0, 1.0, to_width == W16);
    let s = Source(from_width, first, value == 1u, centre, turn, job.w);
    let to = plane_at(job.y, value, group, params.groups, params.head_dim);
    let bits = bits_of(to_width);
    let octets = params.head_dim / 8u;
    if (to_width == W16) {
        for (var i = 0u; i < 2u * octets; i++) {
            let t = 2u * pair + i / octets;
            widened(s, to, t, i % octets, octets, meta_of(from_width, s.at, t, params.head_dim));
        }
        return;
    }
    // Scale and offset of both tokens, as they are stored.
    var ms = array<vec2<f32>, 2>();
    var old = array<vec2<f32>, 2>();
    for (var i = 0u; i < 2u; i++) {
        let t = 2u * pair + i;
        old[i] = meta_of(from_width, s.at, t, params.head_dim);
        var low = vec4<f32>(1e30);
        var high = vec4<f32>(-1e30);
        for (var quad = 0u; quad < 2u * octets; quad++) {
            let e = source(s, t, quad, old[i]);
            low = min(low, e);
            high = max(high, e);
        }
        let least = min(min(low.x, low.y), min(low.z, low.w));
        let most = max(max(high.x, high.y), max(high.z, high.w));
        let word = pack2x16float(vec2<f32>((most - least) / f32((1u << bits) - 1u), least));
        pages[4u * (to + data_pieces(to_width, params.head_dim)) + t] = word;
        ms[i] = unpack2x16float(word);
    }
    for (var o = 0u; o < octets; o++) {
        var n = array<vec2<u32>, 2>();
        for (var i = 0u; i < 2u; i++) {
            let t = 2u * pair + i;
            let lo = source(s, t, 2u * o, old[i]);
            let hi = source(s, t, 2u * o + 1u, old[i]);
            n[i] = vec2<u32>(packed(lo, ms[i], bits), packed(hi, ms[i], bits));
        }
        for (var i = 0u; i < 2u; i++) {
            let t = 2u * pair + i;
            let key = 4u * (to + (o * bits / 16u) * 16u + t);
            let val = 4u * (to + (t * bits / 16u) * octets + o);
            if (bits == 8u) {
                let w = select(key + 2u * (o & 1u), val + 2u * (t & 1u), s.value);
                pages[w] = n[i].x;
                pages[w + 1u] = n[i].y;
            } else if (bits == 4u) {
                pages[select(key + (o & 3u), val + (t & 3u), s.value)] = n[i].x | (n[i].y << 16u);
            } else if (s.value) {
                // Both tokens share a word.
                if (i == 1u) { pages[val + (t & 7u) / 2u] = n[0].x | (n[0].y << 8u) | (n[1].x << 16u) | (n[1].y << 24u); }
            } else if ((o & 1u) == 1u || o + 1u == octets) {
                // Two octets share a word: the second one reads the first again.
                var w = n[i].x | (n[i].y << 8u);
                if ((o & 1u) == 1u) {
                    let lo = source(s, t, 2u * o - 2u, old[i]);
                    let hi = source(s, t, 2u * o - 1u, old[i]);
                    w = (w << 16u) | packed(lo, ms[i], bits) | (packed(hi, ms[i], bits) << 8u);
                }
                pages[key + (o & 7u) / 2u] = w;
            }
        }
    }
}
