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
fn dot32(s: Sub, o: u32) -> f32 {
    var acc = quad(s, 0u) * x[o];
    acc += quad(s, 1u) * x[o + 1u];
    acc += quad(s, 2u) * x[o + 2u];
    acc += quad(s, 3u) * x[o + 3u];
    acc += quad(s, 4u) * x[o + 4u];
    acc += quad(s, 5u) * x[o + 5u];
    acc += quad(s, 6u) * x[o + 6u];
    acc += quad(s, 7u) * x[o + 7u];
    return (acc.x + acc.y) + (acc.z + acc.w);
}

fn store(row: u32, n: u32, value: f32) {
    let i = row * params.y_stride + params.y_offset + n;
    var v = value;
    if (params.bias == 1u) { v += bias[params.y_offset + n]; }
    if (params.accumulate == 1u) { v += y[i]; }
    y[i] = v;
}

// Store one feature of up to eight rows.
fn finish(row: u32, rows: u32, n: u32, lo: vec4<f32>, hi: vec4<f32>) {
    if (n >= params.n) { return; }
    store(row, n, lo.x);
    if (row + 1u < rows) { store(row + 1u, n, lo.y); }
    if (row + 2u < rows) { store(row + 2u, n, lo.z); }
    if (row + 3u < rows) { store(row + 3u, n, lo.w); }
    if (row + 4u < rows) { store(row + 4u, n, hi.x); }
    if (row + 5u < rows) { store(row + 5u, n, hi.y); }
    if (row + 6u < rows) { store(row + 6u, n, hi.z); }
    if (row + 7u < rows) { store(row + 7u, n, hi.w); }
}
