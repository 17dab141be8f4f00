// FEATURES output features a workgroup, LANES threads each, the panels dealt out among them and the partial sums added up:
// decode on adapters with many cores, which one thread a feature would leave idle.
#import shared/matmul

override FEATURES: u32 = 8u;    // the two make 256
override LANES: u32 = 32u;
var<workgroup> partial: array<f32, 256>;

@compute @workgroup_size(256)
fn matvec_wide(
    @builtin(local_invocation_index) local: u32,
    @builtin(workgroup_id) group: vec3<u32>,
#ifdef SUBGROUPS
    @builtin(subgroup_size) subgroup: u32,
#endif
) {
    // Neighbouring threads take neighbouring rows, so that a region is read in whole cache lines.
    let feature = local % FEATURES;
    let lane = local / FEATURES;
    let n = group.x * FEATURES + feature;
    let row = group.y;
    let here = n < params.n && row < batch_rows();
    var acc = 0.0;
    if (here) {
        let first = (n / params.row_block) * params.panels_stored;
        let r = n % params.row_block;
        let o = (row * params.x_stride + params.x_offset) / 4u;
        let pieces = params.panels * SUBS;
        for (var i = lane; i < pieces; i += LANES) {
            let base = region(first + i / SUBS, params.row_block);
            acc += dot32(fetch(base, params.row_block, r, i % SUBS), o + i * 8u);
        }
    }
#ifdef SUBGROUPS
    // Threads of one feature are FEATURES apart: fold them inside the subgroup, then across subgroups.
    for (var distance = FEATURES; distance < subgroup; distance *= 2u) { acc += subgroupShuffleXor(acc, distance); }
    let folded = max(subgroup / FEATURES, 1u);
#else
    let folded = 1u;
#endif
    partial[local] = acc;
    workgroupBarrier();
    if (lane == 0u && here) {
        var total = 0.0;
        for (var i = 0u; i < LANES; i += folded) { total += partial[feature + i * FEATURES]; }
        store(row, n, total);
    }
}
