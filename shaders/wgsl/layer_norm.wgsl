// LayerNorm (Ba, Kiros and Hinton, arXiv 1607.06450) in place: x = (x - mean) / sqrt(variance + eps) · weight + bias, one
// workgroup a row. A residual is added by the product before it (its `accumulate`). Mean and variance are taken one after
// the other: a sum of squares alone loses what a large mean leaves of the variance.
#import shared/step

struct LayerNormParams {
    dim: u32,           // features of a row, a multiple of 4
    stride: u32,        // features between two rows, a multiple of 4
    out_rows: u32,      // 1: the batch is step.out_rows, else step.rows
    eps: f32,
}
@group(0) @binding(1) var<uniform> params: LayerNormParams;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;      // (dim)
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;        // (dim)
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>;     // (rows, stride)

// Fixed when a pipeline is made: it bounds loops.
override DIM: u32 = 4u;

const LANES = 32u;
var<workgroup> partial: array<f32, 32>;

fn across(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

#ifdef SUBGROUPS
fn total(lane: u32, subgroup: u32, subgroup_lane: u32, mine: f32) -> f32 {
    let sum = subgroupAdd(mine);
    workgroupBarrier();     // the sums before this one were read
    if (subgroup_lane == 0u) { partial[lane / subgroup] = sum; }
    workgroupBarrier();
    var all = 0.0;
    for (var i = 0u; i < max(LANES / subgroup, 1u); i++) { all += partial[i]; }
    return all;
}
#else
fn total(lane: u32, mine: f32) -> f32 {
    workgroupBarrier();     // the sum before this one was read
    partial[lane] = mine;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) { partial[lane] += partial[lane + half]; }
    }
    workgroupBarrier();
    return partial[0];
}
#endif

@compute @workgroup_size(32)
fn layer_norm(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) group: vec3<u32>,
#ifdef SUBGROUPS
    @builtin(subgroup_size) subgroup: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#endif
) {
    let first = group.y * params.stride / 4u;
    let quads = DIM / 4u;
    var sum = 0.0;
    for (var i = lane; i < quads; i += LANES) { sum += across(x[first + i]); }
#ifdef SUBGROUPS
    let mean = total(lane, subgroup, subgroup_lane, sum) / f32(DIM);
#else
    let mean = total(lane, sum) / f32(DIM);
#endif
    var squares = 0.0;
    for (var i = lane; i < quads; i += LANES) {
        let d = x[first + i] - vec4<f32>(mean);
        squares += dot(d, d);
    }
#ifdef SUBGROUPS
    let variance = total(lane, subgroup, subgroup_lane, squares) / f32(DIM);
#else
    let variance = total(lane, squares) / f32(DIM);
#endif
    let scale = inverseSqrt(variance + params.eps);
    for (var i = lane; i < quads; i += LANES) {
        x[first + i] = (x[first + i] - vec4<f32>(mean)) * scale * weight[i] + bias[i];
    }
}
