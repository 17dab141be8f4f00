// FEATURES output features a workgroup, LANES threads each, the panels dealt out among them and the partial sums added up:
// decode on adapters with many cores, which one thread a feature would leave idle.
#import shared/matmul

override FEATURES: u32 = 8u;    // the two make 256
override LANES: u32 = 32u;
// Sums of products, and of squares of x, of each thread.
var<workgroup> partial: array<vec2<f32>, 256>;

// Dot product of 32 weights with normed x from vec4 `o` on, and the sum of squares of that x.
fn dot32(s: Sub, o: u32, g: u32) -> vec2<f32> {
    var acc = vec4<f32>(0.0);
    var squares = 0.0;
    for (var i = 0u; i < 8u; i++) {
        let v = x[o + i];
        acc += quad(s, i) * gained(v, g + i);
        if (NORM == 1u) { squares += dot(v, v); }
    }
    return vec2<f32>((acc.x + acc.y) + (acc.z + acc.w), squares);
}

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
    var acc = vec2<f32>(0.0);
    if (n < params.n && row < batch_rows()) {
        let first = (n / params.row_block) * params.panels_stored;
        let r = n % params.row_block;
        let o = (row * params.x_stride + params.x_offset) / 4u;
        let pieces = params.panels * SUBS;
        for (var i = lane; i < pieces; i += LANES) {
            let base = region(first + i / SUBS, params.row_block);
            acc += dot32(fetch(base, params.row_block, r, i % SUBS), o + i * 8u, i * 8u);
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
    if (lane == 0u && row < batch_rows()) {
        var total = vec2<f32>(0.0);
        for (var i = 0u; i < LANES; i += folded) { total += partial[feature + i * FEATURES]; }
        partial[local] = vec2<f32>(total.x * norm_factor(total.y), 0.0);
    }
    workgroupBarrier();
    // Four features are finished together: the gated MLP joins two and two.
    if (local < FEATURES / 4u && row < batch_rows()) {
        let i = 4u * local;
        finish(row, group.x * FEATURES + i, vec4<f32>(partial[i].x, partial[i + 1u].x, partial[i + 2u].x, partial[i + 3u].x));
    }
}
