// Rotary position embedding (Su et al., arXiv 2104.09864) of queries in place and of keys on their way into the pages;
// values go into the pages as they are. One thread four elements.
#import shared/step

struct RopeParams {
    heads: u32,         // query heads kept
    kept: u32,          // KV groups kept
    groups: u32,        // groups a chunk has room for
    head_dim: u32,
    heads_per_group: u32,
    stride: u32,        // features between two rows of qkv
    halves: u32,        // 1: pairs (i, i + d/2), else (2i, 2i + 1)
    rope_offset: u32,   // first (cos, sin) of this layer's rotary embedding
}
@group(0) @binding(1) var<uniform> params: RopeParams;
@group(0) @binding(2) var<storage, read> rows: array<vec4<u32>>;        // (rows): position, first entry of the chunk table
@group(0) @binding(3) var<storage, read> tables: array<u32>;            // chunk tables: width << 28 | slot
@group(0) @binding(4) var<storage, read> rope: array<vec2<f32>>;        // (ropes, rows, head_dim / 2): cos, sin
// (rows, groups, heads_per_group queries | key | value, head_dim)
@group(0) @binding(5) var<storage, read_write> qkv: array<f32>;
// (slots, K|V, groups, 16, head_dim), two elements each
#ifdef KV32
@group(0) @binding(6) var<storage, read_write> pages: array<vec2<f32>>;
fn stored(e: vec2<f32>) -> vec2<f32> { return e; }
#else
@group(0) @binding(6) var<storage, read_write> pages: array<u32>;
fn stored(e: vec2<f32>) -> u32 { return pack2x16float(e); }
#endif

// The first of the two adjacent elements of pair-couple `j`, and of its partner.
fn places(j: u32) -> vec2<u32> {
    if (params.halves == 1u) { return vec2<u32>(2u * j, 2u * j + params.head_dim / 2u); }
    return vec2<u32>(4u * j, 4u * j + 2u);
}

// Rotate elements (a0, a1) at places.x and (b0, b1) at places.y.
fn rotate(e: vec4<f32>, row: u32, j: u32) -> vec4<f32> {
    let o = params.rope_offset + row * (params.head_dim / 2u) + 2u * j;
    let p = rope[o];
    let s = rope[o + 1u];
    if (params.halves == 1u) {
        return vec4<f32>(e.x * p.x - e.z * p.y, e.y * s.x - e.w * s.y, e.z * p.x + e.x * p.y, e.w * s.x + e.y * s.y);
    }
    return vec4<f32>(e.x * p.x - e.y * p.y, e.y * p.x + e.x * p.y, e.z * s.x - e.w * s.y, e.w * s.x + e.z * s.y);
}

@compute @workgroup_size(64)
fn rope_kv(@builtin(global_invocation_id) gid: vec3<u32>) {
    let quads = params.head_dim / 4u;
    let slot = gid.x / quads;
    let j = gid.x % quads;
    let row = gid.y;
    if (row >= step.rows || slot >= params.heads + 2u * params.kept) { return; }
    let at = places(j);
    let per_group = params.heads_per_group + 2u;
    if (slot < params.heads) {
        let head = (slot / params.heads_per_group) * per_group + slot % params.heads_per_group;
        let to = at + vec2<u32>(row * params.stride + head * params.head_dim);
        let e = rotate(vec4<f32>(qkv[to.x], qkv[to.x + 1u], qkv[to.y], qkv[to.y + 1u]), row, j);
        qkv[to.x] = e.x;
        qkv[to.x + 1u] = e.y;
        qkv[to.y] = e.z;
        qkv[to.y + 1u] = e.w;
        return;
    }
    let place = rows[row];
    let entry = tables[place.y + place.x / 16u];
    let is_value = slot >= params.heads + params.kept;
    let group = (slot - params.heads) % params.kept;
    // In elements: slot, K or V, group, token.
    let page = (((entry & 0x0fffffffu) * 2u + u32(is_value)) * params.groups + group) * 16u + place.x % 16u;
    let head = group * per_group + params.heads_per_group + u32(is_value);
    let src = at + vec2<u32>(row * params.stride + head * params.head_dim);
    var e = vec4<f32>(qkv[src.x], qkv[src.x + 1u], qkv[src.y], qkv[src.y + 1u]);
    if (!is_value) { e = rotate(e, row, j); }
    let to = vec2<u32>(page * params.head_dim) + at;
    pages[to.x / 2u] = stored(e.xy);
    pages[to.y / 2u] = stored(e.zw);
}
