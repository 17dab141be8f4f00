// The form for CPUs, for heads of 64 dimensions at most, whose private values stay in registers. Eight lanes: lane i scores
// tokens i and i + 8, and sums dimensions 8i..8i+8.
// Measured on llvmpipe, ns for eight lanes: loading a piece of four words 21, one word 10, eight products and sums 0.33,
// a broadcast 0.37, whether or not a condition masks them.
#import shared/hadamard

var<private> ql: array<vec4<f32>, 4>;     // (query): the lane's eight features, times scale
var<private> qh: array<vec4<f32>, 4>;
var<private> al: array<vec4<f32>, 4>;     // (query): sums of the lane's eight dimensions
var<private> ah: array<vec4<f32>, 4>;
var<private> q_sum: vec4<f32>;                  // of all features of each query
var<private> s0: vec4<f32>;                     // scores of each query with token `lane`, and with token `lane + 8`
var<private> s1: vec4<f32>;
var<private> p: vec4<f32>;                      // what `give` hands out
var<private> m: vec4<f32>;
var<private> l: vec4<f32>;                      // of this lane's tokens
var<private> offsets: vec4<f32>;                // of this lane's tokens
var<private> shrink: vec4<f32>;
var<private> p0: vec4<f32>;
var<private> p1: vec4<f32>;
var<private> touched: u32;                      // words that nobody needs

fn take0(c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) {
    let l0 = subgroupBroadcast(ql[0u], 0u);
    let h0 = subgroupBroadcast(qh[0u], 0u);
    let l1 = subgroupBroadcast(ql[1u], 0u);
    let h1 = subgroupBroadcast(qh[1u], 0u);
    let l2 = subgroupBroadcast(ql[2u], 0u);
    let h2 = subgroupBroadcast(qh[2u], 0u);
    let l3 = subgroupBroadcast(ql[3u], 0u);
    let h3 = subgroupBroadcast(qh[3u], 0u);
    s0 += vec4<f32>(dot(l0, c), dot(l1, c), dot(l2, c), dot(l3, c)) + vec4<f32>(dot(h0, d), dot(h1, d), dot(h2, d), dot(h3, d));
    s1 += vec4<f32>(dot(l0, e), dot(l1, e), dot(l2, e), dot(l3, e)) + vec4<f32>(dot(h0, f), dot(h1, f), dot(h2, f), dot(h3, f));
}
fn take1(c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) {
    let l0 = subgroupBroadcast(ql[0u], 1u);
    let h0 = subgroupBroadcast(qh[0u], 1u);
    let l1 = subgroupBroadcast(ql[1u], 1u);
    let h1 = subgroupBroadcast(qh[1u], 1u);
    let l2 = subgroupBroadcast(ql[2u], 1u);
    let h2 = subgroupBroadcast(qh[2u], 1u);
    let l3 = subgroupBroadcast(ql[3u], 1u);
    let h3 = subgroupBroadcast(qh[3u], 1u);
    s0 += vec4<f32>(dot(l0, c), dot(l1, c), dot(l2, c), dot(l3, c)) + vec4<f32>(dot(h0, d), dot(h1, d), dot(h2, d), dot(h3, d));
    s1 += vec4<f32>(dot(l0, e), dot(l1, e), dot(l2, e), dot(l3, e)) + vec4<f32>(dot(h0, f), dot(h1, f), dot(h2, f), dot(h3, f));
}
fn take2(c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) {
    let l0 = subgroupBroadcast(ql[0u], 2u);
    let h0 = subgroupBroadcast(qh[0u], 2u);
    let l1 = subgroupBroadcast(ql[1u], 2u);
    let h1 = subgroupBroadcast(qh[1u], 2u);
    let l2 = subgroupBroadcast(ql[2u], 2u);
    let h2 = subgroupBroadcast(qh[2u], 2u);
    let l3 = subgroupBroadcast(ql[3u], 2u);
    let h3 = subgroupBroadcast(qh[3u], 2u);
    s0 += vec4<f32>(dot(l0, c), dot(l1, c), dot(l2, c), dot(l3, c)) + vec4<f32>(dot(h0, d), dot(h1, d), dot(h2, d), dot(h3, d));
    s1 += vec4<f32>(dot(l0, e), dot(l1, e), dot(l2, e), dot(l3, e)) + vec4<f32>(dot(h0, f), dot(h1, f), dot(h2, f), dot(h3, f));
}
fn take3(c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) {
    let l0 = subgroupBroadcast(ql[0u], 3u);
    let h0 = subgroupBroadcast(qh[0u], 3u);
    let l1 = subgroupBroadcast(ql[1u], 3u);
    let h1 = subgroupBroadcast(qh[1u], 3u);
    let l2 = subgroupBroadcast(ql[2u], 3u);
    let h2 = subgroupBroadcast(qh[2u], 3u);
    let l3 = subgroupBroadcast(ql[3u], 3u);
    let h3 = subgroupBroadcast(qh[3u], 3u);
    s0 += vec4<f32>(dot(l0, c), dot(l1, c), dot(l2, c), dot(l3, c)) + vec4<f32>(dot(h0, d), dot(h1, d), dot(h2, d), dot(h3, d));
    s1 += vec4<f32>(dot(l0, e), dot(l1, e), dot(l2, e), dot(l3, e)) + vec4<f32>(dot(h0, f), dot(h1, f), dot(h2, f), dot(h3, f));
}
fn take4(c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) {
    let l0 = subgroupBroadcast(ql[0u], 4u);
    let h0 = subgroupBroadcast(qh[0u], 4u);
    let l1 = subgroupBroadcast(ql[1u], 4u);
    let h1 = subgroupBroadcast(qh[1u], 4u);
    let l2 = subgroupBroadcast(ql[2u], 4u);
    let h2 = subgroupBroadcast(qh[2u], 4u);
    let l3 = subgroupBroadcast(ql[3u], 4u);
    let h3 = subgroupBroadcast(qh[3u], 4u);
    s0 += vec4<f32>(dot(l0, c), dot(l1, c), dot(l2, c), dot(l3, c)) + vec4<f32>(dot(h0, d), dot(h1, d), dot(h2, d), dot(h3, d));
    s1 += vec4<f32>(dot(l0, e), dot(l1, e), dot(l2, e), dot(l3, e)) + vec4<f32>(dot(h0, f), dot(h1, f), dot(h2, f), dot(h3, f));
}
fn take5(c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) {
    let l0 = subgroupBroadcast(ql[0u], 5u);
    let h0 = subgroupBroadcast(qh[0u], 5u);
    let l1 = subgroupBroadcast(ql[1u], 5u);
    let h1 = subgroupBroadcast(qh[1u], 5u);
    let l2 = subgroupBroadcast(ql[2u], 5u);
    let h2 = subgroupBroadcast(qh[2u], 5u);
    let l3 = subgroupBroadcast(ql[3u], 5u);
    let h3 = subgroupBroadcast(qh[3u], 5u);
    s0 += vec4<f32>(dot(l0, c), dot(l1, c), dot(l2, c), dot(l3, c)) + vec4<f32>(dot(h0, d), dot(h1, d), dot(h2, d), dot(h3, d));
    s1 += vec4<f32>(dot(l0, e), dot(l1, e), dot(l2, e), dot(l3, e)) + vec4<f32>(dot(h0, f), dot(h1, f), dot(h2, f), dot(h3, f));
}
fn take6(c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) {
    let l0 = subgroupBroadcast(ql[0u], 6u);
    let h0 = subgroupBroadcast(qh[0u], 6u);
    let l1 = subgroupBroadcast(ql[1u], 6u);
    let h1 = subgroupBroadcast(qh[1u], 6u);
    let l2 = subgroupBroadcast(ql[2u], 6u);
    let h2 = subgroupBroadcast(qh[2u], 6u);
    let l3 = subgroupBroadcast(ql[3u], 6u);
    let h3 = subgroupBroadcast(qh[3u], 6u);
    s0 += vec4<f32>(dot(l0, c), dot(l1, c), dot(l2, c), dot(l3, c)) + vec4<f32>(dot(h0, d), dot(h1, d), dot(h2, d), dot(h3, d));
    s1 += vec4<f32>(dot(l0, e), dot(l1, e), dot(l2, e), dot(l3, e)) + vec4<f32>(dot(h0, f), dot(h1, f), dot(h2, f), dot(h3, f));
}
fn take7(c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) {
    let l0 = subgroupBroadcast(ql[0u], 7u);
    let h0 = subgroupBroadcast(qh[0u], 7u);
    let l1 = subgroupBroadcast(ql[1u], 7u);
    let h1 = subgroupBroadcast(qh[1u], 7u);
    let l2 = subgroupBroadcast(ql[2u], 7u);
    let h2 = subgroupBroadcast(qh[2u], 7u);
    let l3 = subgroupBroadcast(ql[3u], 7u);
    let h3 = subgroupBroadcast(qh[3u], 7u);
    s0 += vec4<f32>(dot(l0, c), dot(l1, c), dot(l2, c), dot(l3, c)) + vec4<f32>(dot(h0, d), dot(h1, d), dot(h2, d), dot(h3, d));
    s1 += vec4<f32>(dot(l0, e), dot(l1, e), dot(l2, e), dot(l3, e)) + vec4<f32>(dot(h0, f), dot(h1, f), dot(h2, f), dot(h3, f));
}

fn give0(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 0u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    al[1u] += e.y * lo;
    ah[1u] += e.y * hi;
    al[2u] += e.z * lo;
    ah[2u] += e.z * hi;
    al[3u] += e.w * lo;
    ah[3u] += e.w * hi;
}
fn give1(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 1u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    al[1u] += e.y * lo;
    ah[1u] += e.y * hi;
    al[2u] += e.z * lo;
    ah[2u] += e.z * hi;
    al[3u] += e.w * lo;
    ah[3u] += e.w * hi;
}
fn give2(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 2u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    al[1u] += e.y * lo;
    ah[1u] += e.y * hi;
    al[2u] += e.z * lo;
    ah[2u] += e.z * hi;
    al[3u] += e.w * lo;
    ah[3u] += e.w * hi;
}
fn give3(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 3u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    al[1u] += e.y * lo;
    ah[1u] += e.y * hi;
    al[2u] += e.z * lo;
    ah[2u] += e.z * hi;
    al[3u] += e.w * lo;
    ah[3u] += e.w * hi;
}
fn give4(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 4u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    al[1u] += e.y * lo;
    ah[1u] += e.y * hi;
    al[2u] += e.z * lo;
    ah[2u] += e.z * hi;
    al[3u] += e.w * lo;
    ah[3u] += e.w * hi;
}
fn give5(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 5u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    al[1u] += e.y * lo;
    ah[1u] += e.y * hi;
    al[2u] += e.z * lo;
    ah[2u] += e.z * hi;
    al[3u] += e.w * lo;
    ah[3u] += e.w * hi;
}
fn give6(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 6u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    al[1u] += e.y * lo;
    ah[1u] += e.y * hi;
    al[2u] += e.z * lo;
    ah[2u] += e.z * hi;
    al[3u] += e.w * lo;
    ah[3u] += e.w * hi;
}
fn give7(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 7u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    al[1u] += e.y * lo;
    ah[1u] += e.y * hi;
    al[2u] += e.z * lo;
    ah[2u] += e.z * hi;
    al[3u] += e.w * lo;
    ah[3u] += e.w * hi;
}

fn across_max(v: vec4<f32>) -> vec4<f32> {
    let a = max(max(subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u)), max(subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u)));
    let b = max(max(subgroupBroadcast(v, 4u), subgroupBroadcast(v, 5u)), max(subgroupBroadcast(v, 6u), subgroupBroadcast(v, 7u)));
    return max(a, b);
}

fn across_sum(v: vec4<f32>) -> vec4<f32> {
    return ((subgroupBroadcast(v, 0u) + subgroupBroadcast(v, 1u)) + (subgroupBroadcast(v, 2u) + subgroupBroadcast(v, 3u)))
        + ((subgroupBroadcast(v, 4u) + subgroupBroadcast(v, 5u)) + (subgroupBroadcast(v, 6u) + subgroupBroadcast(v, 7u)));
}

// The lane's eight features of each query, for octet o of the head.
fn load_q(o: u32, task: Task) {
    let there = o < params.head_dim / 8u;
    let at = (task.row * params.q_stride + task.head * params.head_dim) / 4u + vec4<u32>(select(0u, 2u * o, there));
    let scale = select(0.0, params.scale, there);
    ql[0u] = q[at.x] * scale;
    qh[0u] = q[at.x + 1u] * scale;
    ql[1u] = q[at.y] * scale;
    qh[1u] = q[at.y + 1u] * scale;
    ql[2u] = q[at.z] * scale;
    qh[2u] = q[at.z + 1u] * scale;
    ql[3u] = q[at.w] * scale;
    qh[3u] = q[at.w + 1u] * scale;
}

#ifdef KV32
const WIDTH = W32;
// Scores of tokens `lane` and `lane + 8`.
fn scores(at: u32, lane: u32) {
    let last = params.head_dim / 8u - 1u;
    let i0 = at + min(0u, last) * 32u + lane;
    take0(bitcast<vec4<f32>>(pages[i0]), bitcast<vec4<f32>>(pages[i0 + 16u]), bitcast<vec4<f32>>(pages[i0 + 8u]), bitcast<vec4<f32>>(pages[i0 + 24u]));
    let i1 = at + min(1u, last) * 32u + lane;
    take1(bitcast<vec4<f32>>(pages[i1]), bitcast<vec4<f32>>(pages[i1 + 16u]), bitcast<vec4<f32>>(pages[i1 + 8u]), bitcast<vec4<f32>>(pages[i1 + 24u]));
    let i2 = at + min(2u, last) * 32u + lane;
    take2(bitcast<vec4<f32>>(pages[i2]), bitcast<vec4<f32>>(pages[i2 + 16u]), bitcast<vec4<f32>>(pages[i2 + 8u]), bitcast<vec4<f32>>(pages[i2 + 24u]));
    let i3 = at + min(3u, last) * 32u + lane;
    take3(bitcast<vec4<f32>>(pages[i3]), bitcast<vec4<f32>>(pages[i3 + 16u]), bitcast<vec4<f32>>(pages[i3 + 8u]), bitcast<vec4<f32>>(pages[i3 + 24u]));
    let i4 = at + min(4u, last) * 32u + lane;
    take4(bitcast<vec4<f32>>(pages[i4]), bitcast<vec4<f32>>(pages[i4 + 16u]), bitcast<vec4<f32>>(pages[i4 + 8u]), bitcast<vec4<f32>>(pages[i4 + 24u]));
    let i5 = at + min(5u, last) * 32u + lane;
    take5(bitcast<vec4<f32>>(pages[i5]), bitcast<vec4<f32>>(pages[i5 + 16u]), bitcast<vec4<f32>>(pages[i5 + 8u]), bitcast<vec4<f32>>(pages[i5 + 24u]));
    let i6 = at + min(6u, last) * 32u + lane;
    take6(bitcast<vec4<f32>>(pages[i6]), bitcast<vec4<f32>>(pages[i6 + 16u]), bitcast<vec4<f32>>(pages[i6 + 8u]), bitcast<vec4<f32>>(pages[i6 + 24u]));
    let i7 = at + min(7u, last) * 32u + lane;
    take7(bitcast<vec4<f32>>(pages[i7]), bitcast<vec4<f32>>(pages[i7 + 16u]), bitcast<vec4<f32>>(pages[i7 + 8u]), bitcast<vec4<f32>>(pages[i7 + 24u]));
}

// The lane's dimensions of eight tokens from t on, weighted with p, tokens past `last` repeating it.
fn values(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = min(lane, octets - 1u);
    let i0 = at + (min(t + 0u, last) * octets + o) * 2u;
    give0(bitcast<vec4<f32>>(pages[i0]), bitcast<vec4<f32>>(pages[i0 + 1u]));
    let i1 = at + (min(t + 1u, last) * octets + o) * 2u;
    give1(bitcast<vec4<f32>>(pages[i1]), bitcast<vec4<f32>>(pages[i1 + 1u]));
    let i2 = at + (min(t + 2u, last) * octets + o) * 2u;
    give2(bitcast<vec4<f32>>(pages[i2]), bitcast<vec4<f32>>(pages[i2 + 1u]));
    let i3 = at + (min(t + 3u, last) * octets + o) * 2u;
    give3(bitcast<vec4<f32>>(pages[i3]), bitcast<vec4<f32>>(pages[i3 + 1u]));
    let i4 = at + (min(t + 4u, last) * octets + o) * 2u;
    give4(bitcast<vec4<f32>>(pages[i4]), bitcast<vec4<f32>>(pages[i4 + 1u]));
    let i5 = at + (min(t + 5u, last) * octets + o) * 2u;
    give5(bitcast<vec4<f32>>(pages[i5]), bitcast<vec4<f32>>(pages[i5 + 1u]));
    let i6 = at + (min(t + 6u, last) * octets + o) * 2u;
    give6(bitcast<vec4<f32>>(pages[i6]), bitcast<vec4<f32>>(pages[i6 + 1u]));
    let i7 = at + (min(t + 7u, last) * octets + o) * 2u;
    give7(bitcast<vec4<f32>>(pages[i7]), bitcast<vec4<f32>>(pages[i7 + 1u]));
}
#endif
#ifdef KV16
const WIDTH = W16;
// Scores of tokens `lane` and `lane + 8`.
fn scores(at: u32, lane: u32) {
    let last = params.head_dim / 8u - 1u;
    let i0 = at + min(0u, last) * 16u + lane;
    let u0 = pages[i0];
    let w0 = pages[i0 + 8u];
    take0(halves4(u0.xy), halves4(u0.zw), halves4(w0.xy), halves4(w0.zw));
    let i1 = at + min(1u, last) * 16u + lane;
    let u1 = pages[i1];
    let w1 = pages[i1 + 8u];
    take1(halves4(u1.xy), halves4(u1.zw), halves4(w1.xy), halves4(w1.zw));
    let i2 = at + min(2u, last) * 16u + lane;
    let u2 = pages[i2];
    let w2 = pages[i2 + 8u];
    take2(halves4(u2.xy), halves4(u2.zw), halves4(w2.xy), halves4(w2.zw));
    let i3 = at + min(3u, last) * 16u + lane;
    let u3 = pages[i3];
    let w3 = pages[i3 + 8u];
    take3(halves4(u3.xy), halves4(u3.zw), halves4(w3.xy), halves4(w3.zw));
    let i4 = at + min(4u, last) * 16u + lane;
    let u4 = pages[i4];
    let w4 = pages[i4 + 8u];
    take4(halves4(u4.xy), halves4(u4.zw), halves4(w4.xy), halves4(w4.zw));
    let i5 = at + min(5u, last) * 16u + lane;
    let u5 = pages[i5];
    let w5 = pages[i5 + 8u];
    take5(halves4(u5.xy), halves4(u5.zw), halves4(w5.xy), halves4(w5.zw));
    let i6 = at + min(6u, last) * 16u + lane;
    let u6 = pages[i6];
    let w6 = pages[i6 + 8u];
    take6(halves4(u6.xy), halves4(u6.zw), halves4(w6.xy), halves4(w6.zw));
    let i7 = at + min(7u, last) * 16u + lane;
    let u7 = pages[i7];
    let w7 = pages[i7 + 8u];
    take7(halves4(u7.xy), halves4(u7.zw), halves4(w7.xy), halves4(w7.zw));
}

// The lane's dimensions of eight tokens from t on, weighted with p, tokens past `last` repeating it.
fn values(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = at + min(lane, octets - 1u);
    let u0 = pages[o + min(t + 0u, last) * octets];
    give0(halves4(u0.xy), halves4(u0.zw));
    let u1 = pages[o + min(t + 1u, last) * octets];
    give1(halves4(u1.xy), halves4(u1.zw));
    let u2 = pages[o + min(t + 2u, last) * octets];
    give2(halves4(u2.xy), halves4(u2.zw));
    let u3 = pages[o + min(t + 3u, last) * octets];
    give3(halves4(u3.xy), halves4(u3.zw));
    let u4 = pages[o + min(t + 4u, last) * octets];
    give4(halves4(u4.xy), halves4(u4.zw));
    let u5 = pages[o + min(t + 5u, last) * octets];
    give5(halves4(u5.xy), halves4(u5.zw));
    let u6 = pages[o + min(t + 6u, last) * octets];
    give6(halves4(u6.xy), halves4(u6.zw));
    let u7 = pages[o + min(t + 7u, last) * octets];
    give7(halves4(u7.xy), halves4(u7.zw));
}
#endif
#ifdef KV8
const WIDTH = W8;
// Scores of tokens `lane` and `lane + 8`.
fn scores(at: u32, lane: u32) {
    let last = params.head_dim / 8u - 1u;
    let i0 = at + min(0u, last / 2u) * 16u + lane;
    let u0 = pages[i0];
    let w0 = pages[i0 + 8u];
    take0(bytes4(u0.x), bytes4(u0.y), bytes4(w0.x), bytes4(w0.y));
    take1(bytes4(u0.z), bytes4(u0.w), bytes4(w0.z), bytes4(w0.w));
    let i1 = at + min(1u, last / 2u) * 16u + lane;
    let u1 = pages[i1];
    let w1 = pages[i1 + 8u];
    take2(bytes4(u1.x), bytes4(u1.y), bytes4(w1.x), bytes4(w1.y));
    take3(bytes4(u1.z), bytes4(u1.w), bytes4(w1.z), bytes4(w1.w));
    let i2 = at + min(2u, last / 2u) * 16u + lane;
    let u2 = pages[i2];
    let w2 = pages[i2 + 8u];
    take4(bytes4(u2.x), bytes4(u2.y), bytes4(w2.x), bytes4(w2.y));
    take5(bytes4(u2.z), bytes4(u2.w), bytes4(w2.z), bytes4(w2.w));
    let i3 = at + min(3u, last / 2u) * 16u + lane;
    let u3 = pages[i3];
    let w3 = pages[i3 + 8u];
    take6(bytes4(u3.x), bytes4(u3.y), bytes4(w3.x), bytes4(w3.y));
    take7(bytes4(u3.z), bytes4(u3.w), bytes4(w3.z), bytes4(w3.w));
}

// The lane's dimensions of eight tokens from t on, weighted with p; `last` is for unsealed chunks.
fn values(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = at + min(lane, octets - 1u);
    let u0 = pages[o + (t / 2u + 0u) * octets];
    give0(bytes4(u0.x), bytes4(u0.y));
    give1(bytes4(u0.z), bytes4(u0.w));
    let u1 = pages[o + (t / 2u + 1u) * octets];
    give2(bytes4(u1.x), bytes4(u1.y));
    give3(bytes4(u1.z), bytes4(u1.w));
    let u2 = pages[o + (t / 2u + 2u) * octets];
    give4(bytes4(u2.x), bytes4(u2.y));
    give5(bytes4(u2.z), bytes4(u2.w));
    let u3 = pages[o + (t / 2u + 3u) * octets];
    give6(bytes4(u3.x), bytes4(u3.y));
    give7(bytes4(u3.z), bytes4(u3.w));
}
#endif
#ifdef KV4
const WIDTH = W4;
// Scores of tokens `lane` and `lane + 8`.
fn scores(at: u32, lane: u32) {
    let last = params.head_dim / 8u - 1u;
    let i0 = at + min(0u, last / 4u) * 16u + lane;
    let u0 = pages[i0];
    let w0 = pages[i0 + 8u];
    take0(nibbles4(u0.x), nibbles4(u0.x >> 16u), nibbles4(w0.x), nibbles4(w0.x >> 16u));
    take1(nibbles4(u0.y), nibbles4(u0.y >> 16u), nibbles4(w0.y), nibbles4(w0.y >> 16u));
    take2(nibbles4(u0.z), nibbles4(u0.z >> 16u), nibbles4(w0.z), nibbles4(w0.z >> 16u));
    take3(nibbles4(u0.w), nibbles4(u0.w >> 16u), nibbles4(w0.w), nibbles4(w0.w >> 16u));
    let i1 = at + min(1u, last / 4u) * 16u + lane;
    let u1 = pages[i1];
    let w1 = pages[i1 + 8u];
    take4(nibbles4(u1.x), nibbles4(u1.x >> 16u), nibbles4(w1.x), nibbles4(w1.x >> 16u));
    take5(nibbles4(u1.y), nibbles4(u1.y >> 16u), nibbles4(w1.y), nibbles4(w1.y >> 16u));
    take6(nibbles4(u1.z), nibbles4(u1.z >> 16u), nibbles4(w1.z), nibbles4(w1.z >> 16u));
    take7(nibbles4(u1.w), nibbles4(u1.w >> 16u), nibbles4(w1.w), nibbles4(w1.w >> 16u));
}

// The lane's dimensions of eight tokens from t on, weighted with p; `last` is for unsealed chunks.
fn values(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = at + min(lane, octets - 1u);
    let u0 = pages[o + (t / 4u + 0u) * octets];
    give0(nibbles4(u0.x), nibbles4(u0.x >> 16u));
    give1(nibbles4(u0.y), nibbles4(u0.y >> 16u));
    give2(nibbles4(u0.z), nibbles4(u0.z >> 16u));
    give3(nibbles4(u0.w), nibbles4(u0.w >> 16u));
    let u1 = pages[o + (t / 4u + 1u) * octets];
    give4(nibbles4(u1.x), nibbles4(u1.x >> 16u));
    give5(nibbles4(u1.y), nibbles4(u1.y >> 16u));
    give6(nibbles4(u1.z), nibbles4(u1.z >> 16u));
    give7(nibbles4(u1.w), nibbles4(u1.w >> 16u));
}
#endif
#ifdef KV2
const WIDTH = W2;
// Scores of tokens `lane` and `lane + 8`.
fn scores(at: u32, lane: u32) {
    let i0 = at + lane;
    let u = pages[i0];
    let w = pages[i0 + 8u];
    take0(crumbs4(u.x >> 0u), crumbs4(u.x >> 8u), crumbs4(w.x >> 0u), crumbs4(w.x >> 8u));
    take1(crumbs4(u.x >> 16u), crumbs4(u.x >> 24u), crumbs4(w.x >> 16u), crumbs4(w.x >> 24u));
    take2(crumbs4(u.y >> 0u), crumbs4(u.y >> 8u), crumbs4(w.y >> 0u), crumbs4(w.y >> 8u));
    take3(crumbs4(u.y >> 16u), crumbs4(u.y >> 24u), crumbs4(w.y >> 16u), crumbs4(w.y >> 24u));
    take4(crumbs4(u.z >> 0u), crumbs4(u.z >> 8u), crumbs4(w.z >> 0u), crumbs4(w.z >> 8u));
    take5(crumbs4(u.z >> 16u), crumbs4(u.z >> 24u), crumbs4(w.z >> 16u), crumbs4(w.z >> 24u));
    take6(crumbs4(u.w >> 0u), crumbs4(u.w >> 8u), crumbs4(w.w >> 0u), crumbs4(w.w >> 8u));
    take7(crumbs4(u.w >> 16u), crumbs4(u.w >> 24u), crumbs4(w.w >> 16u), crumbs4(w.w >> 24u));
}

// The lane's dimensions of eight tokens from t on, weighted with p; `last` is for unsealed chunks.
fn values(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = at + min(lane, octets - 1u);
    let u = pages[o + (t / 8u) * octets];
    give0(crumbs4(u.x >> 0u), crumbs4(u.x >> 8u));
    give1(crumbs4(u.x >> 16u), crumbs4(u.x >> 24u));
    give2(crumbs4(u.y >> 0u), crumbs4(u.y >> 8u));
    give3(crumbs4(u.y >> 16u), crumbs4(u.y >> 24u));
    give4(crumbs4(u.z >> 0u), crumbs4(u.z >> 8u));
    give5(crumbs4(u.z >> 16u), crumbs4(u.z >> 24u));
    give6(crumbs4(u.w >> 0u), crumbs4(u.w >> 8u));
    give7(crumbs4(u.w >> 16u), crumbs4(u.w >> 24u));
}
#endif

// The next chunk of this form's width, from c on.
fn next_of(c: u32, task: Task) -> u32 {
    var n = c;
    while (n < task.end && width_of(tables[task.table + n]) != WIDTH) { n++; }
    return n;
}

// The first 512 bytes of a chunk's keys and values, a cache line a lane, so that they are on their way while the chunk before
// it is summed: what came late of every plane had cost a tenth of all.
fn touch(entry: u32, lane: u32, group: u32) {
    let keys = plane_at(entry, 0u, group, params.groups, params.head_dim) + 4u * lane;
    let vals = plane_at(entry, 1u, group, params.groups, params.head_dim) + 4u * lane;
    touched ^= pages[keys].x ^ pages[vals].x;
}

// What has been summed shrinks to the new maximum.
fn shrink_sums() {
    al[0u] *= shrink.x;
    ah[0u] *= shrink.x;
    al[1u] *= shrink.y;
    ah[1u] *= shrink.y;
    al[2u] *= shrink.z;
    ah[2u] *= shrink.z;
    al[3u] *= shrink.w;
    ah[3u] *= shrink.w;
}

// Sum of the lane's features of each query.
fn features_sum() -> vec4<f32> {
    let one = vec4<f32>(1.0);
    let e0 = dot(ql[0u] + qh[0u], one);
    let e1 = dot(ql[1u] + qh[1u], one);
    let e2 = dot(ql[2u] + qh[2u], one);
    let e3 = dot(ql[3u] + qh[3u], one);
    return vec4<f32>(e0, e1, e2, e3);
}

// From scores to weights: the running maximum, and what each lane's tokens weigh.
fn soften(c: u32, lane: u32, task: Task, there: bool) {
    let t0 = vec4<u32>(c * CHUNK + lane);
    let t1 = t0 + vec4<u32>(8u);
    let ok0 = (t0 >= task.seen) & (t0 <= task.pos) & vec4<bool>(there);
    let ok1 = (t1 >= task.seen) & (t1 <= task.pos) & vec4<bool>(there);
    s0 = select(vec4<f32>(NONE), s0, ok0);
    s1 = select(vec4<f32>(NONE), s1, ok1);
    let next = max(m, across_max(max(s0, s1)));
    p0 = select(vec4<f32>(0.0), exp(s0 - next), ok0);
    p1 = select(vec4<f32>(0.0), exp(s1 - next), ok1);
    shrink = exp(m - next);
    l = l * shrink + (p0 + p1);
    m = next;
    shrink_sums();
    if (step.density == 1u) {
        let sum = across_sum(p0 + p1);
        let j = lane & 3u;
        let sight = there && c * CHUNK <= task.pos[j] && c * CHUNK + CHUNK > task.seen[j];
        if (lane < 4u && task.real[j] && sight) {
            chunk_ml[(task.row[j] * params.heads + task.head[j]) * step.batch_chunks + c] = weight_of(m[j], sum[j]);
        }
    }
}

#ifdef QUANTISED
// Scores and weights where elements are whole numbers with a scale and an offset.
fn soften_quantised(c: u32, lane: u32, task: Task, there: bool, keys: u32, vals: u32) {
    let data = data_pieces(WIDTH, params.head_dim);
    let k0 = unpack2x16float(pages[keys + data + lane / 4u][lane & 3u]);
    let k1 = unpack2x16float(pages[keys + data + 2u + lane / 4u][lane & 3u]);
    s0 = s0 * k0.x + q_sum * k0.y;
    s1 = s1 * k1.x + q_sum * k1.y;
    if (CENTRES > 0u) {
        let octets = params.head_dim / 8u;
        let u = pages[centre_at(CENTRES, c, task.group, params.groups, octets, min(lane, octets - 1u))];
        let lo = halves4(u.xy);
        let hi = halves4(u.zw);
        // Lanes past the head hold no features.
        let mid = across_sum(vec4<f32>(dot(ql[0], lo), dot(ql[1], lo), dot(ql[2], lo), dot(ql[3], lo))
            + vec4<f32>(dot(qh[0], hi), dot(qh[1], hi), dot(qh[2], hi), dot(qh[3], hi)));
        s0 += mid;
        s1 += mid;
    }
    soften(c, lane, task, there);
    let v0 = unpack2x16float(pages[vals + data + lane / 4u][lane & 3u]);
    let v1 = unpack2x16float(pages[vals + data + 2u + lane / 4u][lane & 3u]);
    offsets = offsets * shrink + p0 * v0.y + p1 * v1.y;
    p0 *= v0.x;
    p1 *= v1.x;
}
#endif

// Offsets are added to the lane's sums of one query, and the transform of values is undone: across the lanes, inside a lane.
fn turn_back(i: u32, offset: f32, lane: u32) {
    var lo = al[i] + vec4<f32>(offset);
    var hi = ah[i] + vec4<f32>(offset);
    if (params.rotate > 0u) {
        let lanes = min(params.rotate / 8u, 8u);
        var x = vec4<f32>(0.0);
        var y = vec4<f32>(0.0);
        let c0 = select(0.0, sign_of(lane % lanes, 0u % lanes), lane / lanes == 0u / lanes);
        x += c0 * subgroupBroadcast(lo, 0u);
        y += c0 * subgroupBroadcast(hi, 0u);
        let c1 = select(0.0, sign_of(lane % lanes, 1u % lanes), lane / lanes == 1u / lanes);
        x += c1 * subgroupBroadcast(lo, 1u);
        y += c1 * subgroupBroadcast(hi, 1u);
        let c2 = select(0.0, sign_of(lane % lanes, 2u % lanes), lane / lanes == 2u / lanes);
        x += c2 * subgroupBroadcast(lo, 2u);
        y += c2 * subgroupBroadcast(hi, 2u);
        let c3 = select(0.0, sign_of(lane % lanes, 3u % lanes), lane / lanes == 3u / lanes);
        x += c3 * subgroupBroadcast(lo, 3u);
        y += c3 * subgroupBroadcast(hi, 3u);
        let c4 = select(0.0, sign_of(lane % lanes, 4u % lanes), lane / lanes == 4u / lanes);
        x += c4 * subgroupBroadcast(lo, 4u);
        y += c4 * subgroupBroadcast(hi, 4u);
        let c5 = select(0.0, sign_of(lane % lanes, 5u % lanes), lane / lanes == 5u / lanes);
        x += c5 * subgroupBroadcast(lo, 5u);
        y += c5 * subgroupBroadcast(hi, 5u);
        let c6 = select(0.0, sign_of(lane % lanes, 6u % lanes), lane / lanes == 6u / lanes);
        x += c6 * subgroupBroadcast(lo, 6u);
        y += c6 * subgroupBroadcast(hi, 6u);
        let c7 = select(0.0, sign_of(lane % lanes, 7u % lanes), lane / lanes == 7u / lanes);
        x += c7 * subgroupBroadcast(lo, 7u);
        y += c7 * subgroupBroadcast(hi, 7u);
        x = hadamard4(x);
        y = hadamard4(y);
        let size = inverseSqrt(f32(params.rotate));
        lo = (x + y) * size;
        hi = (x - y) * size;
    }
    al[i] = lo;
    ah[i] = hi;
}

fn turn_four(offset: vec4<f32>, lane: u32) {
    turn_back(0u, offset.x, lane);
    turn_back(1u, offset.y, lane);
    turn_back(2u, offset.z, lane);
    turn_back(3u, offset.w, lane);
}

// The lane's dimensions o of one query. An empty part writes no values.
fn store_one(i: u32, j: u32, o: u32, task: Task, sum: f32) {
    let octets = params.head_dim / 8u;
    let at = part_of(task, j);
    let mine = task.real[j] && sum > 0.0 && o < octets;
    if (mine && !alone()) {
        partial[(at * octets + o) * 2u] = al[i];
        partial[(at * octets + o) * 2u + 1u] = ah[i];
    }
    if (mine && alone()) {
        let to = out_of(task, j) + 2u * o;
        out[to] = al[i] / sum;
        out[to + 1u] = ah[i] / sum;
    }
}

fn store_four(o: u32, task: Task, sums: vec4<f32>) {
    store_one(0u, 0u, o, task, sums.x);
    store_one(1u, 1u, o, task, sums.y);
    store_one(2u, 2u, o, task, sums.z);
    store_one(3u, 3u, o, task, sums.w);
}

@compute @workgroup_size(8)
fn attn_split(@builtin(workgroup_id) wg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let task = task_of(wg.x);
    load_q(lane, task);
    q_sum = across_sum(features_sum());
    m = vec4<f32>(NONE);
    let most = max(max(task.pos.x, task.pos.y), max(task.pos.z, task.pos.w));

    // llvmpipe seems to run the body of a loop once more after its condition has failed, so this one asks at its end. A part without
    // chunks has one turn too: no token is in sight, its sum stays zero, and so nothing of it is stored.
    var c = next_of(task.begin, task);
    loop {
        let there = c < task.end;
        let entry = tables[task.table + c];
        let keys = plane_at(entry, 0u, task.group, params.groups, params.head_dim);
        let vals = plane_at(entry, 1u, task.group, params.groups, params.head_dim);
        let last = most - c * CHUNK;
        touch(tables[task.table + min(c + 1u, task.end - 1u)], lane, task.group);
        s0 = vec4<f32>(0.0);
        s1 = vec4<f32>(0.0);
        scores(keys, lane);
#ifdef QUANTISED
        soften_quantised(c, lane, task, there, keys, vals);
#else
        soften(c, lane, task, there);
#endif
        p = p0;
        values(vals, lane, 0u, last);
        p = p1;
        values(vals, lane, 8u, last);
        continuing {
            c = next_of(c + 1u, task);
            break if c >= task.end;
        }
    }
    let l_all = across_sum(l);
    let off = across_sum(offsets);
    turn_four(off, lane);
    store_four(lane, task, l_all);
    let j = lane & 3u;
    let ml = vec2<f32>(m[j], l_all[j]);
    if (lane < 4u && task.real[j] && !alone()) { split_ml[part_of(task, j)] = ml; }
    // The same again, if ever: what is touched must seem to matter.
    if (touched == 0x9e3779b9u && lane < 4u && task.real[j] && !alone()) { split_ml[part_of(task, j)] = ml; }
    if (lane < 4u && task.real[j] && alone()) { row_ml[task.row[j] * params.heads + task.head[j]] = ml; }
}
