// y = act(norm(x) Wᵀ + bias) (+ y): what the matrix kernels share.
#import shared/step
#import shared/weights
#import shared/activation

struct MatmulParams {
    n: u32,             // output features to compute: a prefix of the rows
    panels: u32,        // panels to read: a prefix of the columns
    panels_stored: u32, // panels of a row block as stored
    row_block: u32,     // rows of a row block, a multiple of 32
    x_offset: u32,      // first input feature
    x_stride: u32,      // features between two rows of x
    first: u32,         // output feature of row 0 of this part
    y_offset: u32,      // where output feature 0 lies
    y_stride: u32,      // features between two rows of y
    y_run: u32,         // output features side by side; 0: all
    y_step: u32,        // from one run to the next
    bias: u32,          // 1: add bias[feature]
    accumulate: u32,    // 1: add to y
    out_rows: u32,      // 1: the batch is step.out_rows, else step.rows
    norm: u32,          // 1: RMSNorm of x on the way in
    glu: u32,           // gated MLP on the way out, 1: SiLU, 2: GELU; rows come as gate, gate, up, up
    eps: f32,
    gain_offset: f32,   // added to every gain of the norm
    pad0: u32,
    pad1: u32,
}
@group(0) @binding(1) var<uniform> params: MatmulParams;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;  // (rows, x_stride)
@group(0) @binding(3) var<storage, read> w: array<vec4<u32>>;  // [row block][panel][plane][row]
@group(0) @binding(4) var<storage, read> ws: array<u32>;       // the same buffer
@group(0) @binding(5) var<storage, read> bias: array<f32>;     // (features)
@group(0) @binding(6) var<storage, read> gain: array<vec4<f32>>; // (panels read): of the norm
@group(0) @binding(7) var<storage, read_write> y: array<f32>;  // (rows, y_stride)

// Set to the params of the same names when the pipeline is made, so that what is not asked for costs nothing.
override NORM: u32 = 0u;
override GLU: u32 = 0u;
override BIAS: u32 = 0u;
override ACCUMULATE: u32 = 0u;
override Y_RUN: u32 = 0u;

fn batch_rows() -> u32 { return select(step.rows, step.out_rows, params.out_rows == 1u); }

// x before the norm's common factor, which is applied to the sums.
fn gained(v: vec4<f32>, at: u32) -> vec4<f32> {
    if (NORM == 1u) { return v * (gain[at] + vec4<f32>(params.gain_offset)); }
    return v;
}

// The norm's common factor, from the sum of squares.
fn norm_factor(squares: f32) -> f32 {
    if (NORM == 1u) { return inverseSqrt(squares / f32(params.panels * SUBS * 32u) + params.eps); }
    return 1.0;
}

fn put(row: u32, f: u32, value: f32) {
    var i = row * params.y_stride + params.y_offset;
    let run = max(Y_RUN, 1u);   // a constant divisor of 0 does not compile
    if (Y_RUN > 0u) { i += (f / run) * params.y_step + f % run; } else { i += f; }
    var v = value;
    if (ACCUMULATE == 1u) { v += y[i]; }
    y[i] = v;
}

fn biased(f: u32, value: f32) -> f32 {
    if (BIAS == 1u) { return value + bias[f]; }
    return value;
}

// Store rows n to n + 3 of W, n a multiple of 4, for a row of the batch.
fn finish(row: u32, n: u32, sums: vec4<f32>) {
    if (n >= params.n) { return; }
    let f = params.first + n;
    if (GLU > 0u) {
        put(row, f / 2u, activated(biased(f, sums.x)) * biased(f + 2u, sums.z));
        put(row, f / 2u + 1u, activated(biased(f + 1u, sums.y)) * biased(f + 3u, sums.w));
        return;
    }
    put(row, f, biased(f, sums.x));
    if (n + 1u < params.n) { put(row, f + 1u, biased(f + 1u, sums.y)); }
    if (n + 2u < params.n) { put(row, f + 2u, biased(f + 2u, sums.z)); }
    if (n + 3u < params.n) { put(row, f + 3u, biased(f + 3u, sums.w)); }
}

fn activated(g: f32) -> f32 {
    if (GLU == 2u) { return gelu(g); }
    return silu(g);
}
