// Attention in which every query sees every key: the encoder's (Devlin et al., arXiv 1810.04805). Softmax is kept up as
// keys come, four at a time (Milakov and Gimelshein, arXiv 1805.02867). A thread takes two queries of one head, 32 rows
// apart, so that what is read of keys and values serves both. No barrier, no shared memory.
//
// With subgroups, each lane of eight loads one quad of a key and hands it to the others: on software adapters a load costs
// as much as dozens of products.
#import shared/step

struct DenseParams {
    heads: u32,
    head_dim: u32,      // a multiple of 4, at most 64
    q_offset: u32,      // query of head h and row r: at q_offset + r · q_stride + h · head_dim
    q_stride: u32,
    k_offset: u32,      // keys likewise
    kv_stride: u32,
    v_offset: u32,      // values likewise
    out_stride: u32,
    before: u32,        // keys before those of step.rows
    out_rows: u32,      // 1: queries are step.out_rows, else step.rows
    scale: f32,         // multiplies q·k
    pad: u32,
}
@group(0) @binding(1) var<uniform> params: DenseParams;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;           // (rows, q_stride)
@group(0) @binding(3) var<storage, read> kv: array<vec4<f32>>;          // (before + rows, kv_stride)
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;   // (rows, out_stride)

// Fixed when a pipeline is made: the one bounds a loop, the other says what is computed at all.
override BEFORE: u32 = 0u;
override HEAD_DIM: u32 = 32u;

const NONE = -1e30;
const APART = 32u;

// Of each query, 16 quads. Past the head's end queries are zeros, and sums are never stored.
var<private> query: array<vec4<f32>, 32>;
var<private> acc: array<vec4<f32>, 32>;
var<private> s0: vec4<f32>;     // scores of the first query with four keys, then what they weigh
var<private> s1: vec4<f32>;
var<private> shrink0: f32;      // what came before weighs so much less
var<private> shrink1: f32;

// Quad `i` of four keys.
fn score(i: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
    let u = query[i];
    let v = query[i + 16u];
    s0 += vec4<f32>(dot(u, a), dot(u, b), dot(u, c), dot(u, d));
    s1 += vec4<f32>(dot(v, a), dot(v, b), dot(v, c), dot(v, d));
}

// Quad `i` of four values.
fn weigh(i: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
    acc[i] = acc[i] * shrink0 + ((a * s0.x + b * s0.y) + (c * s0.z + d * s0.w));
    acc[i + 16u] = acc[i + 16u] * shrink1 + ((a * s1.x + b * s1.y) + (c * s1.z + d * s1.w));
}

// Where quad `i` of a head of 4 keys or values is read: past its end, the last one again.
fn at(first: vec4<u32>, i: u32) -> vec4<u32> { return first + vec4<u32>(min(i, HEAD_DIM / 4u - 1u)); }

#ifdef SUBGROUPS
fn scores(first: vec4<u32>, from_quad: u32, lane: u32) {
    let o = at(first, from_quad + (lane & 7u));
    let a = kv[o.x];
    let b = kv[o.y];
    let c = kv[o.z];
    let d = kv[o.w];
    score(from_quad, subgroupBroadcast(a, 0u), subgroupBroadcast(b, 0u), subgroupBroadcast(c, 0u), subgroupBroadcast(d, 0u));
    score(from_quad + 1u, subgroupBroadcast(a, 1u), subgroupBroadcast(b, 1u), subgroupBroadcast(c, 1u), subgroupBroadcast(d, 1u));
    score(from_quad + 2u, subgroupBroadcast(a, 2u), subgroupBroadcast(b, 2u), subgroupBroadcast(c, 2u), subgroupBroadcast(d, 2u));
    score(from_quad + 3u, subgroupBroadcast(a, 3u), subgroupBroadcast(b, 3u), subgroupBroadcast(c, 3u), subgroupBroadcast(d, 3u));
    score(from_quad + 4u, subgroupBroadcast(a, 4u), subgroupBroadcast(b, 4u), subgroupBroadcast(c, 4u), subgroupBroadcast(d, 4u));
    score(from_quad + 5u, subgroupBroadcast(a, 5u), subgroupBroadcast(b, 5u), subgroupBroadcast(c, 5u), subgroupBroadcast(d, 5u));
    score(from_quad + 6u, subgroupBroadcast(a, 6u), subgroupBroadcast(b, 6u), subgroupBroadcast(c, 6u), subgroupBroadcast(d, 6u));
    score(from_quad + 7u, subgroupBroadcast(a, 7u), subgroupBroadcast(b, 7u), subgroupBroadcast(c, 7u), subgroupBroadcast(d, 7u));
}

fn values(first: vec4<u32>, from_quad: u32, lane: u32) {
    let o = at(first, from_quad + (lane & 7u));
    let a = kv[o.x];
    let b = kv[o.y];
    let c = kv[o.z];
    let d = kv[o.w];
    weigh(from_quad, subgroupBroadcast(a, 0u), subgroupBroadcast(b, 0u), subgroupBroadcast(c, 0u), subgroupBroadcast(d, 0u));
    weigh(from_quad + 1u, subgroupBroadcast(a, 1u), subgroupBroadcast(b, 1u), subgroupBroadcast(c, 1u), subgroupBroadcast(d, 1u));
    weigh(from_quad + 2u, subgroupBroadcast(a, 2u), subgroupBroadcast(b, 2u), subgroupBroadcast(c, 2u), subgroupBroadcast(d, 2u));
    weigh(from_quad + 3u, subgroupBroadcast(a, 3u), subgroupBroadcast(b, 3u), subgroupBroadcast(c, 3u), subgroupBroadcast(d, 3u));
    weigh(from_quad + 4u, subgroupBroadcast(a, 4u), subgroupBroadcast(b, 4u), subgroupBroadcast(c, 4u), subgroupBroadcast(d, 4u));
    weigh(from_quad + 5u, subgroupBroadcast(a, 5u), subgroupBroadcast(b, 5u), subgroupBroadcast(c, 5u), subgroupBroadcast(d, 5u));
    weigh(from_quad + 6u, subgroupBroadcast(a, 6u), subgroupBroadcast(b, 6u), subgroupBroadcast(c, 6u), subgroupBroadcast(d, 6u));
    weigh(from_quad + 7u, subgroupBroadcast(a, 7u), subgroupBroadcast(b, 7u), subgroupBroadcast(c, 7u), subgroupBroadcast(d, 7u));
}
#else
fn scores(first: vec4<u32>, from_quad: u32, lane: u32) {
    for (var i = from_quad; i < min(from_quad + 8u, HEAD_DIM / 4u); i++) {
        let o = at(first, i);
        score(i, kv[o.x], kv[o.y], kv[o.z], kv[o.w]);
    }
}

fn values(first: vec4<u32>, from_quad: u32, lane: u32) {
    for (var i = from_quad; i < min(from_quad + 8u, HEAD_DIM / 4u); i++) {
        let o = at(first, i);
        weigh(i, kv[o.x], kv[o.y], kv[o.z], kv[o.w]);
    }
}
#endif

fn most(v: vec4<f32>) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
fn across(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

@compute @workgroup_size(32)
fn attn_dense(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
#endif
) {
#ifndef SUBGROUPS
    let lane = 0u;
#endif
    // Nobody leaves early: threads past the last row repeat it and store nothing.
    let rows = select(step.rows, step.out_rows, params.out_rows == 1u);
    let head = group.x * params.head_dim;
    let row0 = group.y * 2u * APART + local;
    let row1 = row0 + APART;
    let first0 = (min(row0, rows - 1u) * params.q_stride + params.q_offset + head) / 4u;
    let first1 = (min(row1, rows - 1u) * params.q_stride + params.q_offset + head) / 4u;
    for (var i = 0u; i < HEAD_DIM / 4u; i++) {
        query[i] = q[first0 + i] * params.scale;
        query[i + 16u] = q[first1 + i] * params.scale;
    }
    let keys = BEFORE + step.rows;
    var m0 = NONE;
    var m1 = NONE;
    var l0 = 0.0;
    var l1 = 0.0;
    for (var k = 0u; k < keys; k += 4u) {
        let four = vec4<u32>(k) + vec4<u32>(0u, 1u, 2u, 3u);
        let there = four < vec4<u32>(keys);
        let first = min(four, vec4<u32>(keys - 1u)) * params.kv_stride + vec4<u32>(head);
        s0 = vec4<f32>(0.0);
        s1 = vec4<f32>(0.0);
        let of_keys = (first + vec4<u32>(params.k_offset)) / 4u;
        scores(of_keys, 0u, lane);
        if (HEAD_DIM > 32u) { scores(of_keys, 8u, lane); }
        s0 = select(vec4<f32>(NONE), s0, there);
        s1 = select(vec4<f32>(NONE), s1, there);
        let next0 = max(m0, most(s0));
        let next1 = max(m1, most(s1));
        shrink0 = exp(m0 - next0);
        shrink1 = exp(m1 - next1);
        s0 = exp(s0 - vec4<f32>(next0));
        s1 = exp(s1 - vec4<f32>(next1));
        m0 = next0;
        m1 = next1;
        l0 = l0 * shrink0 + across(s0);
        l1 = l1 * shrink1 + across(s1);
        let of_values = (first + vec4<u32>(params.v_offset)) / 4u;
        values(of_values, 0u, lane);
        if (HEAD_DIM > 32u) { values(of_values, 8u, lane); }
    }
    let to0 = (row0 * params.out_stride + head) / 4u;
    let to1 = (row1 * params.out_stride + head) / 4u;
    for (var i = 0u; i < HEAD_DIM / 4u; i++) {
        if (row0 < rows) { out[to0 + i] = acc[i] / l0; }
        if (row1 < rows) { out[to1 + i] = acc[i + 16u] / l1; }
    }
}
