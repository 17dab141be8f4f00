// GELU with the error function (Hendrycks and Gimpel, arXiv 1606.08415) in place: x = x · (1 + erf(x / √2)) / 2.
//
// WGSL has no erf. With z = |x| / √2, 1 - erf(z) is a polynomial of 1 / (1 + 0.3275911 z) times exp(-z²), off by 1.5e-7 at
// most (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26). So GELU is max(x, 0) - |x| · (1 - erf(z)) / 2,
// which cancels nothing: off by 0.75e-7 |x| at most, and rounding.
#import shared/step

struct GeluParams {
    n: u32,         // features of a row, a multiple of 4
    stride: u32,    // features between two rows, a multiple of 4
    out_rows: u32,  // 1: the batch is step.out_rows, else step.rows
    pad: u32,
}
@group(0) @binding(1) var<uniform> params: GeluParams;
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;     // (rows, stride)

@compute @workgroup_size(64)
fn gelu_erf(@builtin(global_invocation_id) gid: vec3<u32>) {
    let rows = select(step.rows, step.out_rows, params.out_rows == 1u);
    if (gid.x * 4u >= params.n || gid.y >= rows) { return; }
    let i = gid.y * (params.stride / 4u) + gid.x;
    let v = x[i];
    let size = abs(v);
    let t = 1.0 / (vec4<f32>(1.0) + 0.231641888 * size);    // 0.3275911 / √2
    let high = 1.421413741 * vec4<f32>(1.0) + t * (t * 1.061405429 - vec4<f32>(1.453152027));
    let poly = t * (vec4<f32>(0.254829592) + t * (t * high - vec4<f32>(0.284496736)));
    x[i] = max(v, vec4<f32>(0.0)) - 0.5 * size * poly * exp(-0.5 * v * v);
}
