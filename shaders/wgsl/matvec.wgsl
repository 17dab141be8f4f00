// One thread two output features, one row of the batch: decode on adapters with few, wide cores, which no barrier or
// shared memory helps. With subgroups, each lane of eight loads one quad of x and hands it to the others, as in `matmul`;
// on llvmpipe (Q4_1, 1536 x 576) 2.5 times the rate of one feature a thread and no handing over; 4 features 2.2 times.
#import shared/matmul

const THREADS = 32u;

@compute @workgroup_size(32)
fn matvec(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) lane: u32,
#endif
) {
    // Nobody leaves early: lanes past the end repeat the last feature and store nothing.
    let n0 = group.x * THREADS * 2u + local;
    let n1 = n0 + THREADS;
    let m0 = min(n0, params.n - 1u);
    let m1 = min(n1, params.n - 1u);
    let rb = params.row_block;
    let first0 = (m0 / rb) * params.panels_stored;
    let first1 = (m1 / rb) * params.panels_stored;
    var o = (group.y * params.x_stride + params.x_offset) / 4u;
#ifdef SUBGROUPS
    o += lane & 7u;
#endif
    var a0 = vec4<f32>(0.0);
    var a1 = vec4<f32>(0.0);
    for (var piece = 0u; piece < params.panels * SUBS; piece++) {
        let p = piece / SUBS;
        let sub = piece % SUBS;
        let s0 = fetch(region(first0 + p, rb), rb, m0 % rb, sub);
        let s1 = fetch(region(first1 + p, rb), rb, m1 % rb, sub);
#ifdef SUBGROUPS
        let v = x[o];
        let v0 = subgroupBroadcast(v, 0u);
        a0 += quad(s0, 0u) * v0;
        a1 += quad(s1, 0u) * v0;
        let v1 = subgroupBroadcast(v, 1u);
        a0 += quad(s0, 1u) * v1;
        a1 += quad(s1, 1u) * v1;
        let v2 = subgroupBroadcast(v, 2u);
        a0 += quad(s0, 2u) * v2;
        a1 += quad(s1, 2u) * v2;
        let v3 = subgroupBroadcast(v, 3u);
        a0 += quad(s0, 3u) * v3;
        a1 += quad(s1, 3u) * v3;
        let v4 = subgroupBroadcast(v, 4u);
        a0 += quad(s0, 4u) * v4;
        a1 += quad(s1, 4u) * v4;
        let v5 = subgroupBroadcast(v, 5u);
        a0 += quad(s0, 5u) * v5;
        a1 += quad(s1, 5u) * v5;
        let v6 = subgroupBroadcast(v, 6u);
        a0 += quad(s0, 6u) * v6;
        a1 += quad(s1, 6u) * v6;
        let v7 = subgroupBroadcast(v, 7u);
        a0 += quad(s0, 7u) * v7;
        a1 += quad(s1, 7u) * v7;
#else
        for (var i = 0u; i < 8u; i++) {
            let v = x[o + i];
            a0 += quad(s0, i) * v;
            a1 += quad(s1, i) * v;
        }
#endif
        o += 8u;
    }
    if (n0 < params.n) { store(group.y, n0, (a0.x + a0.y) + (a0.z + a0.w)); }
    if (n1 < params.n) { store(group.y, n1, (a1.x + a1.y) + (a1.z + a1.w)); }
}
