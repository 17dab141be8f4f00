// Prefill on the matrix units of GPUs: the tile of matmul_tile, multiplied as cooperative matrices of 16 × 16 f16 that add
// up in f32. Rows of x are divided by their greatest element first, for which they are read twice: f16 ends at 65504, and
// residual streams do not. Subgroups have 32 threads or more, and hold two or four of the tile's 16 matrices each.
// The tile of y passes through workgroup memory, 26 KiB in all: devices with these matrices have it.
//
// NEVER RUN: no adapter at hand when this was written had cooperative matrices of this kind. The build validates it, and
// the tuner checks it against its twin before it is used.
enable f16;
enable wgpu_cooperative_matrix;
#import shared/matmul
#import shared/rounding

const STRIDE = 40u; // of 32 columns, in f16: rows begin in different banks
var<workgroup> x_tile: array<f16, 2560>;
var<workgroup> w_tile: array<f16, 2560>;
var<workgroup> y_tile: array<f32, 4096>;    // (row, feature)
var<workgroup> partial: array<vec2<f32>, 256>;  // of each thread: greatest |x|, sum of squares
var<workgroup> waves: u32;


fn put_x(at: u32, v: vec4<f32>) {
    x_tile[at] = f16(v.x);
    x_tile[at + 1u] = f16(v.y);
    x_tile[at + 2u] = f16(v.z);
    x_tile[at + 3u] = f16(v.w);
}

fn put_w(at: u32, v: vec4<f32>) {
    w_tile[at] = f16(v.x);
    w_tile[at + 1u] = f16(v.y);
    w_tile[at + 2u] = f16(v.z);
    w_tile[at + 3u] = f16(v.w);
}

@compute @workgroup_size(256)
fn matmul_coop(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    // Nobody leaves early: rows and features past the end repeat the last ones and are not stored.
    let rows = batch_rows();
    let row0 = group.y * 64u;
    let rb = params.row_block;
    let pieces = params.panels * SUBS;
    // Stages quads `part` and `part + 4` of a row of x, and of a row of W.
    let part = local % 4u;
    let x_row = local / 4u;
    let x_first = (min(row0 + x_row, rows - 1u) * params.x_stride + params.x_offset) / 4u;
    let x_at = x_row * STRIDE + 4u * part;
    let w_part = local / 64u;
    let w_row = local % 64u;
    let m = min(group.x * 64u + w_row, params.n - 1u);
    let first = (m / rb) * params.panels_stored;
    let r = m % rb;
    let w_at = w_row * STRIDE + 4u * w_part;

    var size = 0.0;
    var squares = 0.0;
    for (var i = part; i < pieces * 8u; i += 4u) {
        let v = x[x_first + i];
        size = max(size, peak(gained(v, i)));
        if (NORM == 1u) { squares += dot(v, v); }
    }
    partial[local] = vec2<f32>(size, squares);
    workgroupBarrier();
    let p = x_row * 4u;
    size = max(max(partial[p].x, partial[p + 1u].x), max(partial[p + 2u].x, partial[p + 3u].x));
    let f = inverse(size);

    // This subgroup's matrices: 16 rows, and 16 features each from `column` on; four of them with four subgroups.
    let row = (subgroup % 4u) * 16u;
    if (local == 0u) { waves = subgroups; }
    let many = workgroupUniformLoad(&waves) == 4u;  // the same for all, as naga has to see
    let column = (subgroup / 4u) * 32u;
    var c0 = coop_mat16x16<f32, C>();
    var c1 = coop_mat16x16<f32, C>();
    var c2 = coop_mat16x16<f32, C>();
    var c3 = coop_mat16x16<f32, C>();
    for (var piece = 0u; piece < pieces; piece++) {
        let g = piece * 8u + part;
        let u = gained(x[x_first + g], g) * f;
        let v = gained(x[x_first + g + 4u], g + 4u) * f;
        let s = fetch(region(first + piece / SUBS, rb), rb, r, piece % SUBS);
        workgroupBarrier();
        put_x(x_at, u);
        put_x(x_at + 16u, v);
        put_w(w_at, quad(s, w_part));
        put_w(w_at + 16u, quad(s, w_part + 4u));
        workgroupBarrier();
        for (var k = 0u; k < 32u; k += 16u) {
            let a = coopLoadT<coop_mat16x16<f16, A>>(&x_tile[row * STRIDE + k], STRIDE);
            // Rows of W are columns of the second factor.
            let b0 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[column * STRIDE + k], STRIDE);
            c0 = coopMultiplyAdd(a, b0, c0);
            let b1 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[(column + 16u) * STRIDE + k], STRIDE);
            c1 = coopMultiplyAdd(a, b1, c1);
            if (many) {
                let b2 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[(column + 32u) * STRIDE + k], STRIDE);
                c2 = coopMultiplyAdd(a, b2, c2);
                let b3 = coopLoad<coop_mat16x16<f16, B>>(&w_tile[(column + 48u) * STRIDE + k], STRIDE);
                c3 = coopMultiplyAdd(a, b3, c3);
            }
        }
    }
    coopStoreT(c0, &y_tile[row * 64u + column], 64u);
    coopStoreT(c1, &y_tile[row * 64u + column + 16u], 64u);
    if (many) {
        coopStoreT(c2, &y_tile[row * 64u + column + 32u], 64u);
        coopStoreT(c3, &y_tile[row * 64u + column + 48u], 64u);
    }
    workgroupBarrier();
    // Four neighbouring features of four rows a thread.
    for (var j = 0u; j < 4u; j++) {
        let y_row = local / 16u + 16u * j;
        if (row0 + y_row < rows) {
            let q = 4u * y_row;
            let at = y_row * 64u + 4u * (local % 16u);
            let largest = max(max(partial[q].x, partial[q + 1u].x), max(partial[q + 2u].x, partial[q + 3u].x));
            let total = (partial[q].y + partial[q + 1u].y) + (partial[q + 2u].y + partial[q + 3u].y);
            let sums = vec4<f32>(y_tile[at], y_tile[at + 1u], y_tile[at + 2u], y_tile[at + 3u]);
            finish(row0 + y_row, group.x * 64u + 4u * (local % 16u), sums * (largest * norm_factor(total)));
        }
    }
}
