// One thread four output features side by side, eight rows of the batch: 32 products for each decoded quad of weights and each quad of
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
    // Nobody leaves early: lanes and rows past the end repeat the last ones and store nothing.
    let rows = batch_rows();
    let row = group.y * 8u;
    let n = (group.x * THREADS + local) * 4u;
    let rb = params.row_block;
    let m = min(n, (params.n - 1u) & ~3u);
    let first = (m / rb) * params.panels_stored;
    let r = m % rb;
    let last = vec4<u32>(rows - 1u);
    let lo = min(vec4<u32>(row) + vec4<u32>(0u, 1u, 2u, 3u), last);
    let hi = min(vec4<u32>(row) + vec4<u32>(4u, 5u, 6u, 7u), last);
    var olo = (lo * params.x_stride + params.x_offset) / 4u;
    var ohi = (hi * params.x_stride + params.x_offset) / 4u;
    var g = 0u;
#ifdef SUBGROUPS
    olo += vec4<u32>(lane & 7u);
    ohi += vec4<u32>(lane & 7u);
    g += lane & 7u;
#endif
    var qlo = vec4<f32>(0.0);   // sums of squares
    var qhi = vec4<f32>(0.0);
    var a0 = vec4<f32>(0.0);
    var a1 = vec4<f32>(0.0);
    var a2 = vec4<f32>(0.0);
    var a3 = vec4<f32>(0.0);
    var a4 = vec4<f32>(0.0);
    var a5 = vec4<f32>(0.0);
    var a6 = vec4<f32>(0.0);
    var a7 = vec4<f32>(0.0);
    // At its end, as in shared/matvec.
    var piece = 0u;
    loop {
        let f = fetch4(region(first + piece / SUBS, rb), rb, r, piece % SUBS);
        let s0 = f.a;
        let s1 = f.b;
        let s2 = f.c;
        let s3 = f.d;
#ifdef SUBGROUPS
        let u0 = x[olo.x];
        let u1 = x[olo.y];
        let u2 = x[olo.z];
        let u3 = x[olo.w];
        let u4 = x[ohi.x];
        let u5 = x[ohi.y];
        let u6 = x[ohi.z];
        let u7 = x[ohi.w];
        qlo += vec4<f32>(dot(u0, u0), dot(u1, u1), dot(u2, u2), dot(u3, u3));
        qhi += vec4<f32>(dot(u4, u4), dot(u5, u5), dot(u6, u6), dot(u7, u7));
        let x0 = gained(u0, g);
        let x1 = gained(u1, g);
        let x2 = gained(u2, g);
        let x3 = gained(u3, g);
        let x4 = gained(u4, g);
        let x5 = gained(u5, g);
        let x6 = gained(u6, g);
        let x7 = gained(u7, g);
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
            let u0 = x[olo.x + i];
            let u1 = x[olo.y + i];
            let u2 = x[olo.z + i];
            let u3 = x[olo.w + i];
            let u4 = x[ohi.x + i];
            let u5 = x[ohi.y + i];
            let u6 = x[ohi.z + i];
            let u7 = x[ohi.w + i];
            qlo += vec4<f32>(dot(u0, u0), dot(u1, u1), dot(u2, u2), dot(u3, u3));
            qhi += vec4<f32>(dot(u4, u4), dot(u5, u5), dot(u6, u6), dot(u7, u7));
            a0 = add(a0, q0, q1, q2, q3, gained(u0, g + i));
            a1 = add(a1, q0, q1, q2, q3, gained(u1, g + i));
            a2 = add(a2, q0, q1, q2, q3, gained(u2, g + i));
            a3 = add(a3, q0, q1, q2, q3, gained(u3, g + i));
            a4 = add(a4, q0, q1, q2, q3, gained(u4, g + i));
            a5 = add(a5, q0, q1, q2, q3, gained(u5, g + i));
            a6 = add(a6, q0, q1, q2, q3, gained(u6, g + i));
            a7 = add(a7, q0, q1, q2, q3, gained(u7, g + i));
        }
#endif
        olo += vec4<u32>(8u);
        ohi += vec4<u32>(8u);
        g += 8u;
        continuing {
            piece++;
            break if piece >= params.panels * SUBS;
        }
    }
#ifdef SUBGROUPS
    // As in shared/matvec.
    if (NORM == 1u) {
        let first = vec4<bool>(lane < 8u);
        qlo = subgroupAdd(select(vec4<f32>(0.0), qlo, first));
        qhi = subgroupAdd(select(vec4<f32>(0.0), qhi, first));
    }
#endif
    finish(row, n, a0 * norm_factor(qlo.x));
    if (row + 1u < rows) { finish(row + 1u, n, a1 * norm_factor(qlo.y)); }
    if (row + 2u < rows) { finish(row + 2u, n, a2 * norm_factor(qlo.z)); }
    if (row + 3u < rows) { finish(row + 3u, n, a3 * norm_factor(qlo.w)); }
    if (row + 4u < rows) { finish(row + 4u, n, a4 * norm_factor(qhi.x)); }
    if (row + 5u < rows) { finish(row + 5u, n, a5 * norm_factor(qhi.y)); }
    if (row + 6u < rows) { finish(row + 6u, n, a6 * norm_factor(qhi.z)); }
    if (row + 7u < rows) { finish(row + 7u, n, a7 * norm_factor(qhi.w)); }
}
