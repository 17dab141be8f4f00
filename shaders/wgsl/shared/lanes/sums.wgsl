// What attention lane by lane is made of, for heads of 64 dimensions at most, whose private values stay in registers. Eight lanes:
// lane i scores tokens i and i + 8, and sums dimensions 8i..8i+8.
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
var<private> kl: array<vec4<f32>, 4>;     // sums as they were before a loop, and the offsets
var<private> kh: array<vec4<f32>, 4>;
var<private> k_offsets: vec4<f32>;
var<private> touched: u32;                      // words that nobody needs

// Whether there can be a query of that number: known when a pipeline is made, so that what the others would cost is left out.
fn has(i: u32) -> bool { return i < most_queries(); }

fn part(i: u32, a: vec4<f32>, b: vec4<f32>) -> f32 {
    if (has(i)) { return dot(a, b); }
    return 0.0;
}

fn take0(c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>) {
    let l0 = subgroupBroadcast(ql[0u], 0u);
    let h0 = subgroupBroadcast(qh[0u], 0u);
    let l1 = subgroupBroadcast(ql[1u], 0u);
    let h1 = subgroupBroadcast(qh[1u], 0u);
    let l2 = subgroupBroadcast(ql[2u], 0u);
    let h2 = subgroupBroadcast(qh[2u], 0u);
    let l3 = subgroupBroadcast(ql[3u], 0u);
    let h3 = subgroupBroadcast(qh[3u], 0u);
    s0 += vec4<f32>(dot(l0, c), part(1u, l1, c), part(2u, l2, c), part(3u, l3, c)) + vec4<f32>(dot(h0, d), part(1u, h1, d), part(2u, h2, d), part(3u, h3, d));
    s1 += vec4<f32>(dot(l0, e), part(1u, l1, e), part(2u, l2, e), part(3u, l3, e)) + vec4<f32>(dot(h0, f), part(1u, h1, f), part(2u, h2, f), part(3u, h3, f));
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
    s0 += vec4<f32>(dot(l0, c), part(1u, l1, c), part(2u, l2, c), part(3u, l3, c)) + vec4<f32>(dot(h0, d), part(1u, h1, d), part(2u, h2, d), part(3u, h3, d));
    s1 += vec4<f32>(dot(l0, e), part(1u, l1, e), part(2u, l2, e), part(3u, l3, e)) + vec4<f32>(dot(h0, f), part(1u, h1, f), part(2u, h2, f), part(3u, h3, f));
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
    s0 += vec4<f32>(dot(l0, c), part(1u, l1, c), part(2u, l2, c), part(3u, l3, c)) + vec4<f32>(dot(h0, d), part(1u, h1, d), part(2u, h2, d), part(3u, h3, d));
    s1 += vec4<f32>(dot(l0, e), part(1u, l1, e), part(2u, l2, e), part(3u, l3, e)) + vec4<f32>(dot(h0, f), part(1u, h1, f), part(2u, h2, f), part(3u, h3, f));
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
    s0 += vec4<f32>(dot(l0, c), part(1u, l1, c), part(2u, l2, c), part(3u, l3, c)) + vec4<f32>(dot(h0, d), part(1u, h1, d), part(2u, h2, d), part(3u, h3, d));
    s1 += vec4<f32>(dot(l0, e), part(1u, l1, e), part(2u, l2, e), part(3u, l3, e)) + vec4<f32>(dot(h0, f), part(1u, h1, f), part(2u, h2, f), part(3u, h3, f));
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
    s0 += vec4<f32>(dot(l0, c), part(1u, l1, c), part(2u, l2, c), part(3u, l3, c)) + vec4<f32>(dot(h0, d), part(1u, h1, d), part(2u, h2, d), part(3u, h3, d));
    s1 += vec4<f32>(dot(l0, e), part(1u, l1, e), part(2u, l2, e), part(3u, l3, e)) + vec4<f32>(dot(h0, f), part(1u, h1, f), part(2u, h2, f), part(3u, h3, f));
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
    s0 += vec4<f32>(dot(l0, c), part(1u, l1, c), part(2u, l2, c), part(3u, l3, c)) + vec4<f32>(dot(h0, d), part(1u, h1, d), part(2u, h2, d), part(3u, h3, d));
    s1 += vec4<f32>(dot(l0, e), part(1u, l1, e), part(2u, l2, e), part(3u, l3, e)) + vec4<f32>(dot(h0, f), part(1u, h1, f), part(2u, h2, f), part(3u, h3, f));
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
    s0 += vec4<f32>(dot(l0, c), part(1u, l1, c), part(2u, l2, c), part(3u, l3, c)) + vec4<f32>(dot(h0, d), part(1u, h1, d), part(2u, h2, d), part(3u, h3, d));
    s1 += vec4<f32>(dot(l0, e), part(1u, l1, e), part(2u, l2, e), part(3u, l3, e)) + vec4<f32>(dot(h0, f), part(1u, h1, f), part(2u, h2, f), part(3u, h3, f));
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
    s0 += vec4<f32>(dot(l0, c), part(1u, l1, c), part(2u, l2, c), part(3u, l3, c)) + vec4<f32>(dot(h0, d), part(1u, h1, d), part(2u, h2, d), part(3u, h3, d));
    s1 += vec4<f32>(dot(l0, e), part(1u, l1, e), part(2u, l2, e), part(3u, l3, e)) + vec4<f32>(dot(h0, f), part(1u, h1, f), part(2u, h2, f), part(3u, h3, f));
}

fn give0(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 0u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    if (has(1u)) {
        al[1u] += e.y * lo;
        ah[1u] += e.y * hi;
    }
    if (has(2u)) {
        al[2u] += e.z * lo;
        ah[2u] += e.z * hi;
    }
    if (has(3u)) {
        al[3u] += e.w * lo;
        ah[3u] += e.w * hi;
    }
}
fn give1(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 1u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    if (has(1u)) {
        al[1u] += e.y * lo;
        ah[1u] += e.y * hi;
    }
    if (has(2u)) {
        al[2u] += e.z * lo;
        ah[2u] += e.z * hi;
    }
    if (has(3u)) {
        al[3u] += e.w * lo;
        ah[3u] += e.w * hi;
    }
}
fn give2(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 2u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    if (has(1u)) {
        al[1u] += e.y * lo;
        ah[1u] += e.y * hi;
    }
    if (has(2u)) {
        al[2u] += e.z * lo;
        ah[2u] += e.z * hi;
    }
    if (has(3u)) {
        al[3u] += e.w * lo;
        ah[3u] += e.w * hi;
    }
}
fn give3(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 3u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    if (has(1u)) {
        al[1u] += e.y * lo;
        ah[1u] += e.y * hi;
    }
    if (has(2u)) {
        al[2u] += e.z * lo;
        ah[2u] += e.z * hi;
    }
    if (has(3u)) {
        al[3u] += e.w * lo;
        ah[3u] += e.w * hi;
    }
}
fn give4(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 4u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    if (has(1u)) {
        al[1u] += e.y * lo;
        ah[1u] += e.y * hi;
    }
    if (has(2u)) {
        al[2u] += e.z * lo;
        ah[2u] += e.z * hi;
    }
    if (has(3u)) {
        al[3u] += e.w * lo;
        ah[3u] += e.w * hi;
    }
}
fn give5(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 5u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    if (has(1u)) {
        al[1u] += e.y * lo;
        ah[1u] += e.y * hi;
    }
    if (has(2u)) {
        al[2u] += e.z * lo;
        ah[2u] += e.z * hi;
    }
    if (has(3u)) {
        al[3u] += e.w * lo;
        ah[3u] += e.w * hi;
    }
}
fn give6(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 6u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    if (has(1u)) {
        al[1u] += e.y * lo;
        ah[1u] += e.y * hi;
    }
    if (has(2u)) {
        al[2u] += e.z * lo;
        ah[2u] += e.z * hi;
    }
    if (has(3u)) {
        al[3u] += e.w * lo;
        ah[3u] += e.w * hi;
    }
}
fn give7(lo: vec4<f32>, hi: vec4<f32>) {
    let e = subgroupBroadcast(p, 7u);
    al[0u] += e.x * lo;
    ah[0u] += e.x * hi;
    if (has(1u)) {
        al[1u] += e.y * lo;
        ah[1u] += e.y * hi;
    }
    if (has(2u)) {
        al[2u] += e.z * lo;
        ah[2u] += e.z * hi;
    }
    if (has(3u)) {
        al[3u] += e.w * lo;
        ah[3u] += e.w * hi;
    }
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

// The next chunk of a width, from c on.
fn next_of(c: u32, task: Task, width: u32) -> u32 {
    var n = c;
    while (n < task.end && width_of(tables[task.table + n]) != width) { n++; }
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
    if (has(1u)) {
        al[1u] *= shrink.y;
        ah[1u] *= shrink.y;
    }
    if (has(2u)) {
        al[2u] *= shrink.z;
        ah[2u] *= shrink.z;
    }
    if (has(3u)) {
        al[3u] *= shrink.w;
        ah[3u] *= shrink.w;
    }
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
    let have = vec4<bool>(there, there && has(1u), there && has(2u), there && has(3u));
    let ok0 = (t0 >= task.seen) & (t0 <= task.pos) & have;
    let ok1 = (t1 >= task.seen) & (t1 <= task.pos) & have;
    s0 = select(vec4<f32>(NONE), s0, ok0);
    s1 = select(vec4<f32>(NONE), s1, ok1);
    let next = max(m, across_max(max(s0, s1)));
    p0 = select(vec4<f32>(0.0), exp(s0 - next), ok0);
    p1 = select(vec4<f32>(0.0), exp(s1 - next), ok1);
    let less = m - next;
    shrink = exp(select(vec4<f32>(0.0), less, vec4<bool>(true, has(1u), has(2u), has(3u))));
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

fn keep() {
    kl = al;
    kh = ah;
    k_offsets = offsets;
}

fn put_back() {
    al = kl;
    ah = kh;
    offsets = k_offsets;
}

// Eight neighbouring features of a head.
struct Octet { lo: vec4<f32>, hi: vec4<f32> }

// The transform, across the lanes and then inside a lane.
fn transformed(e: Octet, lane: u32) -> Octet {
    if (params.rotate == 0u) { return e; }
    let lanes = min(params.rotate / 8u, 8u);
    var x = vec4<f32>(0.0);
    var y = vec4<f32>(0.0);
    let c0 = select(0.0, sign_of(lane % lanes, 0u % lanes), lane / lanes == 0u / lanes);
    x += c0 * subgroupBroadcast(e.lo, 0u);
    y += c0 * subgroupBroadcast(e.hi, 0u);
    let c1 = select(0.0, sign_of(lane % lanes, 1u % lanes), lane / lanes == 1u / lanes);
    x += c1 * subgroupBroadcast(e.lo, 1u);
    y += c1 * subgroupBroadcast(e.hi, 1u);
    let c2 = select(0.0, sign_of(lane % lanes, 2u % lanes), lane / lanes == 2u / lanes);
    x += c2 * subgroupBroadcast(e.lo, 2u);
    y += c2 * subgroupBroadcast(e.hi, 2u);
    let c3 = select(0.0, sign_of(lane % lanes, 3u % lanes), lane / lanes == 3u / lanes);
    x += c3 * subgroupBroadcast(e.lo, 3u);
    y += c3 * subgroupBroadcast(e.hi, 3u);
    let c4 = select(0.0, sign_of(lane % lanes, 4u % lanes), lane / lanes == 4u / lanes);
    x += c4 * subgroupBroadcast(e.lo, 4u);
    y += c4 * subgroupBroadcast(e.hi, 4u);
    let c5 = select(0.0, sign_of(lane % lanes, 5u % lanes), lane / lanes == 5u / lanes);
    x += c5 * subgroupBroadcast(e.lo, 5u);
    y += c5 * subgroupBroadcast(e.hi, 5u);
    let c6 = select(0.0, sign_of(lane % lanes, 6u % lanes), lane / lanes == 6u / lanes);
    x += c6 * subgroupBroadcast(e.lo, 6u);
    y += c6 * subgroupBroadcast(e.hi, 6u);
    let c7 = select(0.0, sign_of(lane % lanes, 7u % lanes), lane / lanes == 7u / lanes);
    x += c7 * subgroupBroadcast(e.lo, 7u);
    y += c7 * subgroupBroadcast(e.hi, 7u);
    x = hadamard4(x);
    y = hadamard4(y);
    let size = inverseSqrt(f32(params.rotate));
    return Octet((x + y) * size, (x - y) * size);
}

// Offsets are added to the lane's sums of one query, and the transform of values is undone.
fn turn_back(i: u32, offset: f32, lane: u32) {
    let e = transformed(Octet(al[i] + vec4<f32>(offset), ah[i] + vec4<f32>(offset)), lane);
    al[i] = e.lo;
    ah[i] = e.hi;
}

fn turn_four(offset: vec4<f32>, lane: u32) {
    turn_back(0u, offset.x, lane);
    turn_back(1u, offset.y, lane);
    turn_back(2u, offset.z, lane);
    turn_back(3u, offset.w, lane);
}
