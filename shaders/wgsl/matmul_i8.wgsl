// Prefill with integer products, where GPUs make four of them at once: the tile of matmul_tile, but each row of x rounded
// to 8 bits in blocks of 32 on the way into workgroup memory (a scale a block, and the sum of its codes for the minimum of
// the weights), and the weights' codes as they are. Half of the threads stage x, the other half the weights.
//
// The minimum is multiplied by the sum of the rounded x, not of x itself: weights lie around 0 though their codes do not,
// so that a rounding error counts by the weight and not by the code.
#import shared/matmul
#import shared/tile
#import shared/rounding
#import shared/packed

// Elements 16 half to 16 half + 15 of row (or feature) r at [64 half + place of r].
var<workgroup> x_tile: array<vec4<u32>, 128>;
var<workgroup> w_tile: array<vec4<u32>, 128>;
var<workgroup> x_scale: array<vec2<f32>, 128>;  // scale of the block, sum of the half's codes
var<workgroup> w_scale: array<vec2<f32>, 128>;  // factor and addend of the half
var<workgroup> peaks: array<f32, 128>;

struct Weights {
    a0: vec4<u32>, b0: vec4<u32>,
    a1: vec4<u32>, b1: vec4<u32>,
    a2: vec4<u32>, b2: vec4<u32>,
    a3: vec4<u32>, b3: vec4<u32>,
    factor: vec4<f32>,
    addend: vec4<f32>,  // of Q6_K: the factor of the second half
}

// What 32 columns add to four features of one row.
fn block(w: Weights, row: u32) -> vec4<f32> {
    let a = x_tile[row];
    let b = x_tile[row + 64u];
    let first = vec4<i32>(dot16(w.a0, a), dot16(w.a1, a), dot16(w.a2, a), dot16(w.a3, a));
    let second = vec4<i32>(dot16(w.b0, b), dot16(w.b1, b), dot16(w.b2, b), dot16(w.b3, b));
    let c = x_scale[row];
#ifdef W_Q6_K
    return c.x * (w.factor * vec4<f32>(first) + w.addend * vec4<f32>(second));
#else
    return c.x * (w.factor * vec4<f32>(first + second) + w.addend * (c.y + x_scale[row + 64u].y));
#endif
}

fn store(row: u32, n: u32, tile_row: u32, acc: vec4<f32>) {
    if (row < batch_rows()) {
        finish(row, n, acc * norm_factor(peaks[2u * tile_row] + peaks[2u * tile_row + 1u]));
    }
}

@compute @workgroup_size(256)
fn matmul_i8(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    // Nobody leaves early: rows and features past the end repeat the last ones and are not stored.
    let rows = batch_rows();
    let row0 = group.y * 16u * ROWS_EACH;
    let rb = params.row_block;
    let of_x = local < 128u;
    let l = local % 128u;
    // x: half a block of one row.
    let x_row = l / 2u;
    let x_half = l % 2u;
    let stages = of_x && x_row < 16u * ROWS_EACH;
    var o = (min(row0 + x_row, rows - 1u) * params.x_stride + params.x_offset) / 4u + 4u * x_half;
    var g = 4u * x_half;
    // Weights: half a sub-block of one feature; neighbours read neighbouring rows.
    let w_half = l / 64u;
    let w_row = l % 64u;
    let m = min(group.x * 64u + w_row, params.n - 1u);
    let first = (m / rb) * params.panels_stored;
    let r = m % rb;
    let w_at = w_half * 64u + feature_place(w_row);
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
        var u0 = vec4<f32>(0.0);
        var u1 = vec4<f32>(0.0);
        var u2 = vec4<f32>(0.0);
        var u3 = vec4<f32>(0.0);
        var s: Sub;
        if (stages) {
            u0 = x[o];
            u1 = x[o + 1u];
            u2 = x[o + 2u];
            u3 = x[o + 3u];
            if (NORM == 1u) { squares += (dot(u0, u0) + dot(u1, u1)) + (dot(u2, u2) + dot(u3, u3)); }
            u0 = gained(u0, g);
            u1 = gained(u1, g + 1u);
            u2 = gained(u2, g + 2u);
            u3 = gained(u3, g + 3u);
            peaks[l] = max(max(peak(u0), peak(u1)), max(peak(u2), peak(u3)));
        }
        if (!of_x) { s = fetch(region(first + piece / SUBS, rb), rb, r, piece % SUBS); }
        workgroupBarrier();
        if (stages) {
            let size = max(peaks[l], peaks[l ^ 1u]);
            let f = inverse(size);
            let codes = rounded16(u0 * f, u1 * f, u2 * f, u3 * f);
            x_tile[x_half * 64u + x_row] = codes;
            x_scale[x_half * 64u + x_row] = vec2<f32>(size / 127.0, f32(sum16(codes)));
        }
        if (!of_x) {
            w_tile[w_at] = packed16(s, w_half);
            w_scale[w_at] = scale(s, 4u * w_half);
        }
        workgroupBarrier();
        let c0 = w_scale[p0];
        let c1 = w_scale[p1];
        let c2 = w_scale[p2];
        let c3 = w_scale[p3];
        let factor = vec4<f32>(c0.x, c1.x, c2.x, c3.x);
#ifdef W_Q6_K
        let addend = vec4<f32>(w_scale[p0 + 64u].x, w_scale[p1 + 64u].x, w_scale[p2 + 64u].x, w_scale[p3 + 64u].x);
#else
        let addend = vec4<f32>(c0.y, c1.y, c2.y, c3.y);
#endif
        let w = Weights(w_tile[p0], w_tile[p0 + 64u], w_tile[p1], w_tile[p1 + 64u], w_tile[p2], w_tile[p2 + 64u], w_tile[p3], w_tile[p3 + 64u],
            factor, addend);
        a0 += block(w, ty);
        if (ROWS_EACH > 1u) { a1 += block(w, ty + 16u); }
        if (ROWS_EACH > 2u) {
            a2 += block(w, ty + 32u);
            a3 += block(w, ty + 48u);
        }
        o += 8u;
        g += 8u;
    }
    if (NORM == 1u) {
        workgroupBarrier();
        if (of_x) { peaks[l] = squares; }
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
