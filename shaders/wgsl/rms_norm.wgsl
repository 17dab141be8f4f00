// RMSNorm (Zhang and Sennrich, arXiv 1910.07467): y = x / sqrt(mean(x²) + eps) · weight, one workgroup a vector.
// With heads > 1 each row holds that many vectors side by side (query and key norms). In place, x is not read: browsers
// forbid binding one buffer to be read and written.
#import shared/step

struct NormParams {
    dim: u32,
    heads: u32,         // vectors a row
    x_stride: u32,      // features between two rows of x
    y_stride: u32,
    accumulate: u32,    // 1: add to y instead of replacing it
    out_rows: u32,      // 1: the batch is step.out_rows, else step.rows
    eps: f32,
    offset: f32,        // added to every weight
    in_place: u32,      // 1: normalise y itself
    y_offset: u32,      // first feature of y
    run: u32,           // vectors of y side by side
    run_step: u32,      // features from one run to the next
}
@group(0) @binding(1) var<uniform> params: NormParams;
@group(0) @binding(2) var<storage, read> x: array<f32>;       // (rows, x_stride)
@group(0) @binding(3) var<storage, read> weight: array<f32>;        // (dim)
@group(0) @binding(4) var<storage, read_write> y: array<f32>;       // (rows, y_stride)

const LANES = 64u;
var<workgroup> partial: array<f32, 64>;

fn value(xi: u32, yi: u32) -> f32 {
    if (params.in_place == 1u) { return y[yi]; }
    return x[xi];
}

@compute @workgroup_size(64)
fn rms_norm(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) group: vec3<u32>,
#ifdef SUBGROUPS
    @builtin(subgroup_size) subgroup: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
#endif
) {
    let head = group.x;
    let row = group.y;
    let xo = row * params.x_stride + head * params.dim;
    let run = max(params.run, 1u);
    let yo = row * params.y_stride + params.y_offset + (head / run) * params.run_step + (head % run) * params.dim;
    var sum = 0.0;
    for (var i = lane; i < params.dim; i += LANES) {
        let v = value(xo + i, yo + i);
        sum += v * v;
    }
#ifdef SUBGROUPS
    sum = subgroupAdd(sum);
    if (subgroup_lane == 0u) { partial[lane / subgroup] = sum; }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < max(LANES / subgroup, 1u); i++) { total += partial[i]; }
#else
    partial[lane] = sum;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) { partial[lane] += partial[lane + half]; }
    }
    workgroupBarrier();
    let total = partial[0];
#endif
    let scale = inverseSqrt(total / f32(params.dim) + params.eps);
    for (var i = lane; i < params.dim; i += LANES) {
        let v = value(xo + i, yo + i) * scale * (weight[i] + params.offset);
        if (params.accumulate == 1u) { y[yo + i] += v; } else { y[yo + i] = v; }
    }
}
