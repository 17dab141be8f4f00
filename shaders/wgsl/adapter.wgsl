// Recovery adapter: y += Bᵀ(A x) + c, of rank 8 at most, beside a matrix whose input x is (ElastiLM, arXiv 2409.09071; low
// rank as in LoRA, arXiv 2106.09685). A workgroup takes four rows of the batch: its threads share out the inputs of A, add
// up in workgroup memory, and share out the outputs of B.
#import shared/step
#import shared/ranks

struct AdapterParams {
    inputs: u32,        // of A, a multiple of 4: what the sub-model keeps
    outputs: u32,       // of B, a multiple of 4
    x_stride: u32,      // features between two rows of x, a multiple of 4
    y_stride: u32,      // features between two rows of y, a multiple of 4
    few: u32,           // 1: batches have two rows at most
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(1) var<uniform> params: AdapterParams;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;       // (rows, x_stride)
// A: (inputs / 4, 2) quads, B: (outputs / 4, 2) quads, c: (outputs / 4) words
@group(0) @binding(3) var<storage, read> codes: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> scales: array<vec4<f32>>;  // of a rank in A times that in B: two quads; c's
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>; // (rows, y_stride)

// Set to the params of the same names when the pipeline is made.
override INPUTS: u32 = 4u;
override OUTPUTS: u32 = 4u;
override FEW: u32 = 0u;

const THREADS = 32u;
const ROWS = 4u;
var<workgroup> parts: array<vec4<f32>, 128>;    // (rows, threads): four ranks each
var<workgroup> totals: array<vec4<f32>, 8>;     // (rows, halves of the ranks)

@compute @workgroup_size(32)
fn adapter(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = group.y * ROWS;
    let last = step.rows - 1u;
    // Rows past the end repeat the last one and store nothing.
    let at = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(last));
    let begin = at * (params.x_stride / 4u);
    let ranks = local & 1u;
    var a0 = vec4<f32>(0.0);
    var a1 = vec4<f32>(0.0);
    var a2 = vec4<f32>(0.0);
    var a3 = vec4<f32>(0.0);
    for (var i = local / 2u; i < INPUTS / 4u; i += THREADS / 2u) {
        let w = codes[2u * i + ranks];
        a0 += four(w, x[begin.x + i]);
        a1 += four(w, x[begin.y + i]);
        if (FEW == 0u) {
            a2 += four(w, x[begin.z + i]);
            a3 += four(w, x[begin.w + i]);
        }
    }
    parts[local] = a0;
    parts[THREADS + local] = a1;
    parts[2u * THREADS + local] = a2;
    parts[3u * THREADS + local] = a3;
    workgroupBarrier();
    if (local < 2u * ROWS) {
        var sum = vec4<f32>(0.0);
        for (var i = 0u; i < THREADS; i += 2u) { sum += parts[(local / 2u) * THREADS + i + ranks]; }
        totals[local] = sum * scales[ranks];
    }
    workgroupBarrier();
    let to = at * (params.y_stride / 4u);
    let of_b = INPUTS / 2u;
    let of_c = of_b + OUTPUTS / 2u;
    for (var o = local; o < OUTPUTS / 4u; o += THREADS) {
        let low = codes[of_b + 2u * o];
        let high = codes[of_b + 2u * o + 1u];
        let constant = bytes(codes[of_c + o / 4u][o & 3u]) * scales[2].x;
        y[to.x + o] += mixed(low, totals[0]) + mixed(high, totals[1]) + constant;
        if (row + 1u <= last) { y[to.y + o] += mixed(low, totals[2]) + mixed(high, totals[3]) + constant; }
        if (FEW == 0u) {
            if (row + 2u <= last) { y[to.z + o] += mixed(low, totals[4]) + mixed(high, totals[5]) + constant; }
            if (row + 3u <= last) { y[to.w + o] += mixed(low, totals[6]) + mixed(high, totals[7]) + constant; }
        }
    }
}
