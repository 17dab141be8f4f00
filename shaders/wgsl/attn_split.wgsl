// One thread a (row, head, part of the chunks): scores of the 16 keys of a chunk in registers, then its values.
// The weighted values accumulate in `partial`, so that no head size is built in and nothing spills.
#import shared/attention

@group(0) @binding(2) var<storage, read> rows: array<vec4<u32>>;            // (rows): position, chunk table
@group(0) @binding(3) var<storage, read> tables: array<u32>;
// (rows, groups, heads_per_group queries | key | value, head_dim)
@group(0) @binding(4) var<storage, read> q: array<vec4<f32>>;
// (slots, K|V, groups, 16, head_dim), four elements each
#ifdef KV32
@group(0) @binding(5) var<storage, read> pages: array<vec4<f32>>;
#else
@group(0) @binding(5) var<storage, read> pages: array<vec2<u32>>;
#endif
@group(0) @binding(6) var<storage, read_write> partial: array<vec4<f32>>;   // (rows, heads, splits, head_dim)
@group(0) @binding(7) var<storage, read_write> split_ml: array<vec2<f32>>;  // (rows, heads, splits): maximum, sum
@group(0) @binding(8) var<storage, read_write> chunk_ml: array<vec2<f32>>;  // (rows, heads, batch_chunks): likewise

fn page(at: u32) -> vec4<f32> {
#ifdef KV32
    return pages[at];
#else
    let p = pages[at];
    return vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y));
#endif
}

// q · k for four tokens from `t` on; tokens past `last` are not written yet, so they repeat it.
fn scores(base: u32, t: u32, last: u32, qo: u32, quads: u32) -> vec4<f32> {
    let at = vec4<u32>(base) + min(vec4<u32>(t, t + 1u, t + 2u, t + 3u), vec4<u32>(last)) * quads;
    var s = vec4<f32>(0.0);
    for (var d = 0u; d < quads; d++) {
        let e = q[qo + d];
        s += vec4<f32>(dot(e, page(at.x + d)), dot(e, page(at.y + d)), dot(e, page(at.z + d)), dot(e, page(at.w + d)));
    }
    return s * params.scale;
}

fn mask(s: vec4<f32>, t: u32, first: u32, last: u32) -> vec4<f32> {
    let at = vec4<u32>(t, t + 1u, t + 2u, t + 3u);
    return select(vec4<f32>(NONE), s, (at >= vec4<u32>(first)) & (at <= vec4<u32>(last)));
}

fn values(base: u32, t: u32, last: u32, d: u32, quads: u32, p: vec4<f32>) -> vec4<f32> {
    let at = vec4<u32>(base + d) + min(vec4<u32>(t, t + 1u, t + 2u, t + 3u), vec4<u32>(last)) * quads;
    return p.x * page(at.x) + p.y * page(at.y) + p.z * page(at.z) + p.w * page(at.w);
}

@compute @workgroup_size(64)
fn attn_split(@builtin(global_invocation_id) gid: vec3<u32>) {
    let head = gid.x % params.heads;
    let row = (gid.x / params.heads) % step.rows;
    let split = gid.x / (params.heads * step.rows);
    if (split >= step.splits) { return; }
    let quads = params.head_dim / 4u;
    let group = head / params.heads_per_group;
    let place = rows[row];
    let pos = place.x;
    var seen = 0u;      // first key in the window
    if (params.window > 0u && pos + 1u > params.window) { seen = pos + 1u - params.window; }
    let begin = max(split * step.chunks_per_split, seen / CHUNK);
    let end = min((split + 1u) * step.chunks_per_split, pos / CHUNK + 1u);
    let place_of_head = group * (params.heads_per_group + 2u) + head % params.heads_per_group;
    let qo = (row * params.q_stride + place_of_head * params.head_dim) / 4u;
    let at = (row * params.heads + head) * step.splits + split;
    let out = at * quads;
    var m = NONE;
    var l = 0.0;
    for (var c = begin; c < end; c++) {
        let slot = tables[place.y + c] & 0x0fffffffu;
        let keys = ((slot * 2u) * params.groups + group) * CHUNK * quads;
        let vals = ((slot * 2u + 1u) * params.groups + group) * CHUNK * quads;
        let last = min(pos - c * CHUNK, CHUNK - 1u);
        let first = max(seen, c * CHUNK) - c * CHUNK;
        var s0 = mask(scores(keys, 0u, last, qo, quads), 0u, first, last);
        var s1 = mask(scores(keys, 4u, last, qo, quads), 4u, first, last);
        var s2 = mask(scores(keys, 8u, last, qo, quads), 8u, first, last);
        var s3 = mask(scores(keys, 12u, last, qo, quads), 12u, first, last);
        let top = max(max(s0, s1), max(s2, s3));
        let cm = max(max(top.x, top.y), max(top.z, top.w));
        let next = max(m, cm);
        s0 = exp(s0 - vec4<f32>(next));
        s1 = exp(s1 - vec4<f32>(next));
        s2 = exp(s2 - vec4<f32>(next));
        s3 = exp(s3 - vec4<f32>(next));
        let sum = s0 + s1 + s2 + s3;
        let cl = (sum.x + sum.y) + (sum.z + sum.w);
        // What came before is scaled down; at the first chunk there is nothing, not even zeros.
        let before = c > begin;
        let shrink = exp(m - next);
        for (var d = 0u; d < quads; d++) {
            var acc = values(vals, 0u, last, d, quads, s0) + values(vals, 4u, last, d, quads, s1)
                + values(vals, 8u, last, d, quads, s2) + values(vals, 12u, last, d, quads, s3);
            if (before) { acc += partial[out + d] * shrink; }
            partial[out + d] = acc;
        }
        l = l * shrink + cl;
        m = next;
        if (step.density == 1u) { chunk_ml[(row * params.heads + head) * step.batch_chunks + c] = vec2<f32>(next, cl); }
    }
    split_ml[at] = vec2<f32>(m, l);
}
