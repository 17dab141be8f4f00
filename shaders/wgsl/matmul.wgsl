// One thread four output features, eight rows of the batch: 32 products for each decoded quad of weights and each quad of
// x. Prefill, and decode of several contexts. No barrier, no shared memory.
//
// With subgroups, each lane of eight loads one quad of x and hands it to the others: on software adapters a load costs as
// much as dozens of products. On llvmpipe (Q4_1, 64 x 1536 x 576), against one feature a thread and no handing over: 8
// times the rate; 2 features 7 times, 1 feature 5 times, 16 rows 4 times. Two nested loops over panels and sub-blocks
// instead of one cost 40 %.
#import shared/matmul

const THREADS = 32u;

fn chain(acc: f32, q: vec4<f32>, u: vec4<f32>) -> f32 {
    let x = acc + q.x * u.x;
    let y = x + q.y * u.y;
    let z = y + q.z * u.z;
    return z + q.w * u.w;
}

// Four features of one row, plus one quad.
fn add(acc: vec4<f32>, q0: vec4<f32>, q1: vec4<f32>, q2: vec4<f32>, q3: vec4<f32>, u: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(chain(acc.x, q0, u), chain(acc.y, q1, u), chain(acc.z, q2, u), chain(acc.w, q3, u));
}

@compute @workgroup_size(32)
fn matmul(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
#endif
) {
    // Nobody leaves early: lanes and rows past the end repeat the last one and store nothing.
    let rows = batch_rows();
    let row = group.y * 8u;
    let n = group.x * THREADS * 4u + local;
    let rb = params.row_block;
    let m = min(vec4<u32>(n, n + THREADS, n + 2u * THREADS, n + 3u * THREADS), vec4<u32>(params.n - 1u));
    let first = (m / rb) * params.panels_stored;
    let r = m % rb;
    let last = vec4<u32>(rows - 1u);
    let lo = min(vec4<u32>(row) + vec4<u32>(0u, 1u, 2u, 3u), last);
    let hi = min(vec4<u32>(row) + vec4<u32>(4u, 5u, 6u, 7u), last);
    var olo = (lo * params.x_stride + params.x_offset) / 4u;
    var ohi = (hi * params.x_stride + params.x_offset) / 4u;
#ifdef SUBGROUPS
    olo += vec4<u32>(lane & 7u);
    ohi += vec4<u32>(lane & 7u);
#endif
    var a0 = vec4<f32>(0.0);
    var a1 = vec4<f32>(0.0);
    var a2 = vec4<f32>(0.0);
    var a3 = vec4<f32>(0.0);
    var a4 = vec4<f32>(0.0);
    var a5 = vec4<f32>(0.0);
    var a6 = vec4<f32>(0.0);
    var a7 = vec4<f32>(0.0);
    for (var piece = 0u; piece < params.panels * SUBS; piece++) {
        let p = piece / SUBS;
        let sub = piece % SUBS;
        let s0 = fetch(region(first.x + p, rb), rb, r.x, sub);
        let s1 = fetch(region(first.y + p, rb), rb, r.y, sub);
        let s2 = fetch(region(first.z + p, rb), rb, r.z, sub);
        let s3 = fetch(region(first.w + p, rb), rb, r.w, sub);
#ifdef SUBGROUPS
        let x0 = x[olo.x];
        let x1 = x[olo.y];
        let x2 = x[olo.z];
        let x3 = x[olo.w];
        let x4 = x[ohi.x];
        let x5 = x[ohi.y];
        let x6 = x[ohi.z];
        let x7 = x[ohi.w];
        {
            let q0 = quad(s0, 0u);
            let q1 = quad(s1, 0u);
            let q2 = quad(s2, 0u);
            let q3 = quad(s3, 0u);
            a0 = add(a0, q0, q1, q2, q3, subgroupBroadcast(x0, 0u));
            a1 = add(a1, q0, q1, q2, q3, subgroupBroadcast(x1, 0u));
            a2 = add(a2, q0, q1, q2, q3, subgroupBroadcast(x2, 0u));
            a3 = add(a3, q0, q1, q2, q3, subgroupBroadcast(x3, 0u));
            a4 = add(a4, q0, q1, q2, q3, subgroupBroadcast(x4, 0u));
            a5 = add(a5, q0, q1, q2, q3, subgroupBroadcast(x5, 0u));
            a6 = add(a6, q0, q1, q2, q3, subgroupBroadcast(x6, 0u));
            a7 = add(a7, q0, q1, q2, q3, subgroupBroadcast(x7, 0u));
        }
        {
            let q0 = quad(s0, 1u);
            let q1 = quad(s1, 1u);
            let q2 = quad(s2, 1u);
            let q3 = quad(s3, 1u);
            a0 = add(a0, q0, q1, q2, q3, subgroupBroadcast(x0, 1u));
            a1 = add(a1, q0, q1, q2, q3, subgroupBroadcast(x1, 1u));
            a2 = add(a2, q0, q1, q2, q3, subgroupBroadcast(x2, 1u));
            a3 = add(a3, q0, q1, q2, q3, subgroupBroadcast(x3, 1u));
            a4 = add(a4, q0, q1, q2, q3, subgroupBroadcast(x4, 1u));
            a5 = add(a5, q0, q1, q2, q3, subgroupBroadcast(x5, 1u));
            a6 = add(a6, q0, q1, q2, q3, subgroupBroadcast(x6, 1u));
            a7 = add(a7, q0, q1, q2, q3, subgroupBroadcast(x7, 1u));
        }
        {
            let q0 = quad(s0, 2u);
            let q1 = quad(s1, 2u);
            let q2 = quad(s2, 2u);
            let q3 = quad(s3, 2u);
            a0 = add(a0, q0, q1, q2, q3, subgroupBroadcast(x0, 2u));
            a1 = add(a1, q0, q1, q2, q3, subgroupBroadcast(x1, 2u));
            a2 = add(a2, q0, q1, q2, q3, subgroupBroadcast(x2, 2u));
            a3 = add(a3, q0, q1, q2, q3, subgroupBroadcast(x3, 2u));
            a4 = add(a4, q0, q1, q2, q3, subgroupBroadcast(x4, 2u));
            a5 = add(a5, q0, q1, q2, q3, subgroupBroadcast(x5, 2u));
            a6 = add(a6, q0, q1, q2, q3, subgroupBroadcast(x6, 2u));
            a7 = add(a7, q0, q1, q2, q3, subgroupBroadcast(x7, 2u));
        }
        {
            let q0 = quad(s0, 3u);
            let q1 = quad(s1, 3u);
            let q2 = quad(s2, 3u);
            let q3 = quad(s3, 3u);
            a0 = add(a0, q0, q1, q2, q3, subgroupBroadcast(x0, 3u));
            a1 = add(a1, q0, q1, q2, q3, subgroupBroadcast(x1, 3u));
            a2 = add(a2, q0, q1, q2, q3, subgroupBroadcast(x2, 3u));
            a3 = add(a3, q0, q1, q2, q3, subgroupBroadcast(x3, 3u));
            a4 = add(a4, q0, q1, q2, q3, subgroupBroadcast(x4, 3u));
            a5 = add(a5, q0, q1, q2, q3, subgroupBroadcast(x5, 3u));
            a6 = add(a6, q0, q1, q2, q3, subgroupBroadcast(x6, 3u));
            a7 = add(a7, q0, q1, q2, q3, subgroupBroadcast(x7, 3u));
        }
        {
            let q0 = quad(s0, 4u);
            let q1 = quad(s1, 4u);
            let q2 = quad(s2, 4u);
            let q3 = quad(s3, 4u);
            a0 = add(a0, q0, q1, q2, q3, subgroupBroadcast(x0, 4u));
            a1 = add(a1, q0, q1, q2, q3, subgroupBroadcast(x1, 4u));
            a2 = add(a2, q0, q1, q2, q3, subgroupBroadcast(x2, 4u));
            a3 = add(a3, q0, q1, q2, q3, subgroupBroadcast(x3, 4u));
            a4 = add(a4, q0, q1, q2, q3, subgroupBroadcast(x4, 4u));
            a5 = add(a5, q0, q1, q2, q3, subgroupBroadcast(x5, 4u));
            a6 = add(a6, q0, q1, q2, q3, subgroupBroadcast(x6, 4u));
            a7 = add(a7, q0, q1, q2, q3, subgroupBroadcast(x7, 4u));
        }
        {
            let q0 = quad(s0, 5u);
            let q1 = quad(s1, 5u);
            let q2 = quad(s2, 5u);
            let q3 = quad(s3, 5u);
            a0 = add(a0, q0, q1, q2, q3, subgroupBroadcast(x0, 5u));
            a1 = add(a1, q0, q1, q2, q3, subgroupBroadcast(x1, 5u));
            a2 = add(a2, q0, q1, q2, q3, subgroupBroadcast(x2, 5u));
            a3 = add(a3, q0, q1, q2, q3, subgroupBroadcast(x3, 5u));
            a4 = add(a4, q0, q1, q2, q3, subgroupBroadcast(x4, 5u));
            a5 = add(a5, q0, q1, q2, q3, subgroupBroadcast(x5, 5u));
            a6 = add(a6, q0, q1, q2, q3, subgroupBroadcast(x6, 5u));
            a7 = add(a7, q0, q1, q2, q3, subgroupBroadcast(x7, 5u));
        }
        {
            let q0 = quad(s0, 6u);
            let q1 = quad(s1, 6u);
            let q2 = quad(s2, 6u);
            let q3 = quad(s3, 6u);
            a0 = add(a0, q0, q1, q2, q3, subgroupBroadcast(x0, 6u));
            a1 = add(a1, q0, q1, q2, q3, subgroupBroadcast(x1, 6u));
            a2 = add(a2, q0, q1, q2, q3, subgroupBroadcast(x2, 6u));
            a3 = add(a3, q0, q1, q2, q3, subgroupBroadcast(x3, 6u));
            a4 = add(a4, q0, q1, q2, q3, subgroupBroadcast(x4, 6u));
            a5 = add(a5, q0, q1, q2, q3, subgroupBroadcast(x5, 6u));
            a6 = add(a6, q0, q1, q2, q3, subgroupBroadcast(x6, 6u));
            a7 = add(a7, q0, q1, q2, q3, subgroupBroadcast(x7, 6u));
        }
        {
            let q0 = quad(s0, 7u);
            let q1 = quad(s1, 7u);
            let q2 = quad(s2, 7u);
            let q3 = quad(s3, 7u);
            a0 = add(a0, q0, q1, q2, q3, subgroupBroadcast(x0, 7u));
            a1 = add(a1, q0, q1, q2, q3, subgroupBroadcast(x1, 7u));
            a2 = add(a2, q0, q1, q2, q3, subgroupBroadcast(x2, 7u));
            a3 = add(a3, q0, q1, q2, q3, subgroupBroadcast(x3, 7u));
            a4 = add(a4, q0, q1, q2, q3, subgroupBroadcast(x4, 7u));
            a5 = add(a5, q0, q1, q2, q3, subgroupBroadcast(x5, 7u));
            a6 = add(a6, q0, q1, q2, q3, subgroupBroadcast(x6, 7u));
            a7 = add(a7, q0, q1, q2, q3, subgroupBroadcast(x7, 7u));
        }
#else
        for (var i = 0u; i < 8u; i++) {
            let q0 = quad(s0, i);
            let q1 = quad(s1, i);
            let q2 = quad(s2, i);
            let q3 = quad(s3, i);
            a0 = add(a0, q0, q1, q2, q3, x[olo.x + i]);
            a1 = add(a1, q0, q1, q2, q3, x[olo.y + i]);
            a2 = add(a2, q0, q1, q2, q3, x[olo.z + i]);
            a3 = add(a3, q0, q1, q2, q3, x[olo.w + i]);
            a4 = add(a4, q0, q1, q2, q3, x[ohi.x + i]);
            a5 = add(a5, q0, q1, q2, q3, x[ohi.y + i]);
            a6 = add(a6, q0, q1, q2, q3, x[ohi.z + i]);
            a7 = add(a7, q0, q1, q2, q3, x[ohi.w + i]);
        }
#endif
        olo += vec4<u32>(8u);
        ohi += vec4<u32>(8u);
    }
    finish(row, rows, n, vec4<f32>(a0.x, a1.x, a2.x, a3.x), vec4<f32>(a4.x, a5.x, a6.x, a7.x));
    finish(row, rows, n + THREADS, vec4<f32>(a0.y, a1.y, a2.y, a3.y), vec4<f32>(a4.y, a5.y, a6.y, a7.y));
    finish(row, rows, n + 2u * THREADS, vec4<f32>(a0.z, a1.z, a2.z, a3.z), vec4<f32>(a4.z, a5.z, a6.z, a7.z));
    finish(row, rows, n + 3u * THREADS, vec4<f32>(a0.w, a1.w, a2.w, a3.w), vec4<f32>(a4.w, a5.w, a6.w, a7.w));
}
