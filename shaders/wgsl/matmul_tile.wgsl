// Prefill and small batches on GPUs: a tile of 64 output features × 16 to 64 rows of the batch a workgroup, 4 × 4 (or 4 × 2,
// 4 × 1) outputs a thread. Both operands are decoded once into workgroup memory, 32 columns at a time, and read from there
// 16 times. All of it takes 16 KiB, WebGPU's floor, so banks are spread by xor instead of padding: neighbouring threads
// read, and write, neighbouring banks.
//
// With F16, operands and products are f16, which most GPUs multiply at twice the rate. f16 ends at 65504, and residual
// streams do not: each row of x is divided by its greatest element of the 32, and sums of 8 products leave f16 for f32,
// where they are multiplied by it again.
#ifdef F16
enable f16;
#endif
#import shared/matmul
#import shared/tile
#import shared/rounding

#ifdef F16
alias four = vec4<f16>;
#else
alias four = vec4<f32>;
#endif
// Element 4 q + i of row (or feature) r is number i of [64 q + place of r].
var<workgroup> x_tile: array<four, 512>;
var<workgroup> w_tile: array<four, 512>;
#ifdef F16
var<workgroup> peaks: array<f32, 256>;  // of the two quads that each thread stages
var<workgroup> sizes: array<f32, 64>;   // what each row was divided by
#endif

#ifdef F16
// Products of four features with one row, each still to be added up across.
struct Products { a: vec4<f16>, b: vec4<f16>, c: vec4<f16>, d: vec4<f16> }

fn more(p: Products, w0: four, w1: four, w2: four, w3: four, u: four) -> Products {
    return Products(p.a + w0 * u, p.b + w1 * u, p.c + w2 * u, p.d + w3 * u);
}

fn across(v: vec4<f16>) -> f32 {
    let pair = v.xy + v.zw;
    return f32(pair.x) + f32(pair.y);
}

fn sums(p: Products) -> vec4<f32> { return vec4<f32>(across(p.a), across(p.b), across(p.c), across(p.d)); }
#else
fn chain(acc: f32, q: vec4<f32>, u: vec4<f32>) -> f32 {
    let x = acc + q.x * u.x;
    let y = x + q.y * u.y;
    let z = y + q.z * u.z;
    return z + q.w * u.w;
}

// Four features of one row, plus one quad.
fn more(acc: vec4<f32>, w0: four, w1: four, w2: four, w3: four, u: four) -> vec4<f32> {
    return vec4<f32>(chain(acc.x, w0, u), chain(acc.y, w1, u), chain(acc.z, w2, u), chain(acc.w, w3, u));
}
#endif

// Sums of squares of a row's four stagers lie where the tile did.
fn keep_squares(local: u32, squares: f32) {
#ifdef F16
    peaks[local] = squares;
#else
    x_tile[local] = vec4<f32>(squares);
#endif
}

fn squares_of(row: u32) -> f32 {
    let i = row * 4u;
#ifdef F16
    return (peaks[i] + peaks[i + 1u]) + (peaks[i + 2u] + peaks[i + 3u]);
#else
    return (x_tile[i].x + x_tile[i + 1u].x) + (x_tile[i + 2u].x + x_tile[i + 3u].x);
#endif
}

fn store(row: u32, n: u32, tile_row: u32, acc: vec4<f32>) {
    if (row < batch_rows()) {
        var factor = 1.0;
        if (NORM == 1u) { factor = norm_factor(squares_of(tile_row)); }
        finish(row, n, acc * factor);
    }
}

@compute @workgroup_size(256)
fn matmul_tile(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Nobody leaves early: rows and features past the end repeat the last ones and are not stored.
    let rows = batch_rows();
    let row0 = group.y * 16u * ROWS_EACH;
    let rb = params.row_block;
    // Stages quads `part` and `part + 4` of a row of x; four threads read 64 bytes in a row.
    let part = local % 4u;
    let x_row = local / 4u;
    let stages = x_row < 16u * ROWS_EACH;
    var o = (min(row0 + x_row, rows - 1u) * params.x_stride + params.x_offset) / 4u + part;
    var g = part;
    let x_at = part * 64u + (x_row ^ (part * 2u));
    // And the same two quads, which share words in most formats, of a row of W; neighbours read neighbouring rows.
    let w_part = local / 64u;
    let w_row = local % 64u;
    let m = min(group.x * 64u + w_row, params.n - 1u);
    let first = (m / rb) * params.panels_stored;
    let r = m % rb;
    let w_at = w_part * 64u + feature_place(w_row);
    // Computes features 4 tx to 4 tx + 3 of rows ty, ty + 16 and so on.
    let tx = local % 16u;
    let ty = local / 16u;
    let p0 = feature_place(4u * tx);
    let p1 = feature_place(4u * tx + 1u);
    let p2 = feature_place(4u * tx + 2u);
    let p3 = feature_place(4u * tx + 3u);
    var squares = 0.0;
    var a0 = vec4<f32>(0.0);
    var a1 = vec4<f32>(0.0);
    var a2 = vec4<f32>(0.0);
    var a3 = vec4<f32>(0.0);
    for (var piece = 0u; piece < params.panels * SUBS; piece++) {
        // Loads begin while others still multiply.
        var u = vec4<f32>(0.0);
        var v = vec4<f32>(0.0);
        if (stages) {
            u = x[o];
            v = x[o + 4u];
            if (NORM == 1u) { squares += dot(u, u) + dot(v, v); }
            u = gained(u, g);
            v = gained(v, g + 4u);
        }
        let s = fetch(region(first + piece / SUBS, rb), rb, r, piece % SUBS);
#ifdef F16
        peaks[local] = max(peak(u), peak(v));
#endif
        workgroupBarrier();
#ifdef F16
        let i = x_row * 4u;
        let size = max(max(peaks[i], peaks[i + 1u]), max(peaks[i + 2u], peaks[i + 3u]));
        u *= inverse(size);
        v *= inverse(size);
        if (part == 0u) { sizes[x_row] = size; }
#endif
        if (stages) {
            x_tile[x_at] = four(u);
            x_tile[x_at + 256u] = four(v);
        }
        w_tile[w_at] = four(quad(s, w_part));
        w_tile[w_at + 256u] = four(quad(s, w_part + 4u));
        workgroupBarrier();
#ifdef F16
        var b0 = Products();
        var b1 = Products();
        var b2 = Products();
        var b3 = Products();
#else
        var b0 = a0;
        var b1 = a1;
        var b2 = a2;
        var b3 = a3;
#endif
        for (var q = 0u; q < 8u; q++) {
            let w = q * 64u;
            let w0 = w_tile[w + p0];
            let w1 = w_tile[w + p1];
            let w2 = w_tile[w + p2];
            let w3 = w_tile[w + p3];
            let at = w + (ty ^ ((q & 3u) * 2u));
            b0 = more(b0, w0, w1, w2, w3, x_tile[at]);
            if (ROWS_EACH > 1u) { b1 = more(b1, w0, w1, w2, w3, x_tile[at + 16u]); }
            if (ROWS_EACH > 2u) {
                b2 = more(b2, w0, w1, w2, w3, x_tile[at + 32u]);
                b3 = more(b3, w0, w1, w2, w3, x_tile[at + 48u]);
            }
        }
#ifdef F16
        a0 += sums(b0) * sizes[ty];
        if (ROWS_EACH > 1u) { a1 += sums(b1) * sizes[ty + 16u]; }
        if (ROWS_EACH > 2u) {
            a2 += sums(b2) * sizes[ty + 32u];
            a3 += sums(b3) * sizes[ty + 48u];
        }
#else
        a0 = b0;
        a1 = b1;
        a2 = b2;
        a3 = b3;
#endif
        o += 8u;
        g += 8u;
    }
    if (NORM == 1u) {
        workgroupBarrier();
        keep_squares(local, squares);
        workgroupBarrier();
    }
    let n = group.x * 64u + 4u * tx;
    store(row0 + ty, n, ty, a0);
    if (ROWS_EACH > 1u) { store(row0 + ty + 16u, n, ty + 16u, a1); }
    if (ROWS_EACH > 2u) {
        store(row0 + ty + 32u, n, ty + 32u, a2);
        store(row0 + ty + 48u, n, ty + 48u, a3);
    }
}
