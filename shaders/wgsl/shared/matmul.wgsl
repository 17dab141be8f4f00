// y = x Wᵀ (+ bias) (+ y): what the matrix kernels share.
#import shared/step
#import shared/weights

struct MatmulParams {
    n: u32,             // output features to compute: a prefix of the rows
    panels: u32,        // panels to read: a prefix of the columns
    panels_stored: u32, // panels of a row block as stored
    row_block: u32,     // rows of a row block, a multiple of 32
    x_offset: u32,      // first input feature
    x_stride: u32,      // features between two rows of x
    y_offset: u32,      // first output feature
    y_stride: u32,      // features between two rows of y
    bias: u32,          // 1: add bias[y_offset + n]
    accumulate: u32,    // 1: add to y
    out_rows: u32,      // 1: the batch is step.out_rows, else step.rows
    pad: u32,
}
@group(0) @binding(1) var<uniform> params: MatmulParams;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;  // (rows, x_stride)
@group(0) @binding(3) var<storage, read> w: array<vec4<u32>>;  // [row block][panel][plane][row]
@group(0) @binding(4) var<storage, read> ws: array<u32>;       // the same buffer
@group(0) @binding(5) var<storage, read> bias: array<f32>;     // (y features)
@group(0) @binding(6) var<storage, read_write> y: array<f32>;  // (rows, y_stride)

fn batch_rows() -> u32 { return select(step.rows, step.out_rows, params.out_rows == 1u); }

// Dot product of 32 weights with x from vec4 `o` on.
fn dot32(b: W32, o: u32) -> f32 {
    let s = b.a * x[o] + b.b * x[o + 1u] + b.c * x[o + 2u] + b.d * x[o + 3u];
    let t = b.e * x[o + 4u] + b.f * x[o + 5u] + b.g * x[o + 6u] + b.h * x[o + 7u];
    let u = s + t;
    return (u.x + u.y) + (u.z + u.w);
}

fn store(row: u32, n: u32, value: f32) {
    let i = row * params.y_stride + params.y_offset + n;
    var v = value;
    if (params.bias == 1u) { v += bias[params.y_offset + n]; }
    if (params.accumulate == 1u) { v += y[i]; }
    y[i] = v;
}
