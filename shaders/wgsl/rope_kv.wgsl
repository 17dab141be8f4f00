// Rotary position embedding (Su et al., arXiv 2104.09864) of queries and keys; then, with `rotate`, a Walsh-Hadamard
// transform of queries, keys and values, block by block of each head. It spreads outliers over the dimensions, so that
// few bits hold what is stored (QuaRot, arXiv 2404.00456); products of queries and keys are unchanged, and `attn_split`
// turns the values back. Queries go to `q_out`, keys and values into the pages. One thread eight elements.
#import shared/step
#import shared/kv
#import shared/hadamard

struct RopeParams {
    heads: u32,             // query heads kept
    heads_per_group: u32,
    kept: u32,              // KV groups kept
    groups: u32,            // groups a chunk has room for
    head_dim: u32,          // a multiple of 16
    halves: u32,            // 1: pairs (i, i + d/2), else (2i, 2i + 1)
    rope_offset: u32,       // first (cos, sin) of this layer's rotary embedding
    rotate: u32,            // dimensions of a block of the transform, a power of two that divides head_dim; 0: none
    q_offset: u32,          // head h of row r: q_offset + r·q_stride + (h / heads_per_group)·q_step
    q_stride: u32,          //     + (h % heads_per_group)·head_dim
    q_step: u32,
    k_offset: u32,          // group g of row r: k_offset + r·k_stride + g·k_step
    k_stride: u32,
    k_step: u32,
    v_offset: u32,
    v_stride: u32,
    v_step: u32,
    out_stride: u32,        // features between two rows of q_out
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(1) var<uniform> params: RopeParams;
@group(0) @binding(2) var<storage, read> rows: array<vec4<u32>>;        // (rows): position, first entry of the chunk table
@group(0) @binding(3) var<storage, read> tables: array<u32>;            // chunk tables: width << 28 | place
@group(0) @binding(4) var<storage, read> rope: array<vec4<f32>>;        // (ropes, rows, head_dim / 2): cos, sin
@group(0) @binding(5) var<storage, read> q: array<vec4<f32>>;           // the three may be one buffer
@group(0) @binding(6) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> q_out: array<vec4<f32>>; // (rows, out_stride)
@group(0) @binding(9) var<storage, read_write> pages: array<vec4<u32>>; // the layer's arena

var<workgroup> stage: array<vec4<f32>, 64>; // two a thread

struct Octet { lo: vec4<f32>, hi: vec4<f32> }

// Eight features from `at` on, of a query (kind 0), a key (1) or a value (2).
fn features(kind: u32, at: u32) -> Octet {
    let i = at / 4u;
    if (kind == 0u) { return Octet(q[i], q[i + 1u]); }
    if (kind == 1u) { return Octet(k[i], k[i + 1u]); }
    return Octet(v[i], v[i + 1u]);
}

// Elements 8o..8o+8 of a head whose features begin at `from`, embedded.
fn embedded(kind: u32, from_feature: u32, o: u32, row: u32) -> Octet {
    let e = features(kind, from_feature + 8u * o);
    if (kind == 2u) { return e; }
    let half = params.head_dim / 2u;
    let angles = params.rope_offset + row * half;
    if (params.halves == 1u) {
        let low = 8u * o < half;
        let other = features(kind, from_feature + select(8u * o - half, 8u * o + half, low));
        let a = (angles + select(8u * o - half, 8u * o, low)) / 2u;
        let c0 = rope[a];
        let c1 = rope[a + 1u];
        let c2 = rope[a + 2u];
        let c3 = rope[a + 3u];
        let turn = select(1.0, -1.0, low);
        return Octet(
            e.lo * vec4<f32>(c0.xz, c1.xz) + turn * other.lo * vec4<f32>(c0.yw, c1.yw),
            e.hi * vec4<f32>(c2.xz, c3.xz) + turn * other.hi * vec4<f32>(c2.yw, c3.yw),
        );
    }
    let a = (angles + 4u * o) / 2u;
    return Octet(pairs(e.lo, rope[a]), pairs(e.hi, rope[a + 1u]));
}

// Two neighbouring pairs by two angles.
fn pairs(e: vec4<f32>, c: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(e.x * c.x - e.y * c.y, e.y * c.x + e.x * c.y, e.z * c.z - e.w * c.w, e.w * c.z + e.z * c.w);
}

@compute @workgroup_size(32)
fn rope_kv(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Nobody leaves before what is shared.
    let octets = params.head_dim / 8u;
    let slots = params.heads + 2u * params.kept;
    let slot = min(gid.x / octets, slots - 1u);
    let o = gid.x % octets;
    let row = gid.y;
    let kind = select(select(1u, 2u, slot >= params.heads + params.kept), 0u, slot < params.heads);
    let group = (slot - params.heads) % params.kept;
    var at = params.q_offset + row * params.q_stride + (slot / params.heads_per_group) * params.q_step
        + (slot % params.heads_per_group) * params.head_dim;
    if (kind == 1u) { at = params.k_offset + row * params.k_stride + group * params.k_step; }
    if (kind == 2u) { at = params.v_offset + row * params.v_stride + group * params.v_step; }
    var e = embedded(kind, at, o, row);
    if (params.rotate > 0u) {
        // Blocks never straddle workgroups: both are powers of two, and heads are whole blocks.
        let block = params.rotate / 8u;
#ifdef SUBGROUPS
        // Lanes follow the local index, and blocks of 64 dimensions at most fill eight.
        var lo = e.lo;
        var hi = e.hi;
        for (var apart = 1u; apart < block; apart *= 2u) {
            let sign = select(1.0, -1.0, (o & apart) > 0u);
            lo = subgroupShuffleXor(lo, apart) + sign * lo;
            hi = subgroupShuffleXor(hi, apart) + sign * hi;
        }
#else
        let a = o % block;
        stage[2u * local] = e.lo;
        stage[2u * local + 1u] = e.hi;
        workgroupBarrier();
        var lo = vec4<f32>(0.0);
        var hi = vec4<f32>(0.0);
        for (var i = 0u; i < block; i++) {
            let s = sign_of(a, i);
            lo += s * stage[2u * (local - a + i)];
            hi += s * stage[2u * (local - a + i) + 1u];
        }
#endif
        lo = hadamard4(lo);
        hi = hadamard4(hi);
        let size = inverseSqrt(f32(params.rotate));
        e = Octet((lo + hi) * size, (lo - hi) * size);
    }
    if (gid.x >= slots * octets || row >= step.rows) { return; }
    if (kind == 0u) {
        let to = (row * params.out_stride + slot * params.head_dim) / 4u + 2u * o;
        q_out[to] = e.lo;
        q_out[to + 1u] = e.hi;
        return;
    }
    let place = rows[row];
    let entry = tables[place.y + place.x / 16u];
    let t = place.x % 16u;
    let plane = plane_at(entry, kind - 1u, group, params.groups, params.head_dim);
    if (width_of(entry) == W32) {
        let to = select(vec2<u32>(32u * o + t, 32u * o + 16u + t), (t * octets + o) * 2u + vec2<u32>(0u, 1u), kind == 2u);
        pages[plane + to.x] = bitcast<vec4<u32>>(e.lo);
        pages[plane + to.y] = bitcast<vec4<u32>>(e.hi);
    } else {
        let to = select(16u * o + t, t * octets + o, kind == 2u);
        pages[plane + to] = vec4<u32>(pack2x16float(e.lo.xy), pack2x16float(e.lo.zw), pack2x16float(e.hi.xy), pack2x16float(e.hi.zw));
    }
}
