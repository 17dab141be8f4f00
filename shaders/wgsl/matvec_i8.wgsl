// Decode with integer products: each workgroup rounds its row of x to 8 bits once, in blocks of 32 with a scale each, into
// workgroup memory; then features are dealt out as in matvec_wide, four columns a product. Long rows come in parts of 256
// blocks, a block a thread, so that any length fits. For the minimum and the sum see matmul_i8.
#import shared/matmul
#import shared/rounding
#import shared/packed

override FEATURES: u32 = 16u;   // the two make 256
override LANES: u32 = 16u;
var<workgroup> xs: array<vec4<u32>, 512>;       // two halves a block
var<workgroup> x_scale: array<vec2<f32>, 256>;  // scale of the block, sum of its codes
// Sums of products, and of squares of x, of each thread.
var<workgroup> partial: array<vec2<f32>, 256>;

// Block `at` of the part from vec4 `o` of x on; the sum of squares.
fn stage(at: u32, o: u32, g: u32) -> f32 {
    var size = 0.0;
    var squares = 0.0;
    for (var i = 0u; i < 8u; i++) {
        let v = x[o + i];
        if (NORM == 1u) { squares += dot(v, v); }
        size = max(size, peak(gained(v, g + i)));
    }
    // Read again: eight vec4s in registers cost more.
    let f = inverse(size);
    var sum = 0;
    for (var h = 0u; h < 2u; h++) {
        let i = 4u * h;
        let codes = rounded16(gained(x[o + i], g + i) * f, gained(x[o + i + 1u], g + i + 1u) * f,
            gained(x[o + i + 2u], g + i + 2u) * f, gained(x[o + i + 3u], g + i + 3u) * f);
        xs[2u * at + h] = codes;
        sum += sum16(codes);
    }
    x_scale[at] = vec2<f32>(size / 127.0, f32(sum));
    return squares;
}

// What block `at` adds to a feature.
fn block(s: Sub, at: u32) -> f32 {
    let a = dot16(packed16(s, 0u), xs[2u * at]);
    let b = dot16(packed16(s, 1u), xs[2u * at + 1u]);
    let c = scale(s, 0u);
    let of_x = x_scale[at];
#ifdef W_Q6_K
    return of_x.x * (c.x * f32(a) + scale(s, 4u).x * f32(b));
#else
    return of_x.x * (c.x * f32(a + b) + c.y * of_x.y);
#endif
}

@compute @workgroup_size(256)
fn matvec_i8(@builtin(local_invocation_index) local: u32, @builtin(workgroup_id) group: vec3<u32>) {
    // Neighbouring threads take neighbouring rows of W, so that a region is read in whole cache lines.
    let feature = local % FEATURES;
    let lane = local / FEATURES;
    let row = group.y;
    let m = min(group.x * FEATURES + feature, params.n - 1u);
    let first = (m / params.row_block) * params.panels_stored;
    let r = m % params.row_block;
    let o = (row * params.x_stride + params.x_offset) / 4u;
    let pieces = params.panels * SUBS;
    var acc = 0.0;
    var squares = 0.0;
    for (var begin = 0u; begin < pieces; begin += 256u) {
        let mine = begin + local;
        if (mine < pieces) { squares += stage(local, o + 8u * mine, 8u * mine); }
        workgroupBarrier();
        for (var i = lane; i < min(256u, pieces - begin); i += LANES) {
            let piece = begin + i;
            let base = region(first + piece / SUBS, params.row_block);
            acc += block(fetch(base, params.row_block, r, piece % SUBS), i);
        }
        workgroupBarrier();
    }
    partial[local] = vec2<f32>(acc, squares);
    workgroupBarrier();
    // Every thread holds the squares of other blocks: added up by 16, and then those.
    if (NORM == 1u) {
        var total = 0.0;
        if (local < 16u) {
            for (var i = 0u; i < 16u; i++) { total += partial[16u * local + i].y; }
        }
        workgroupBarrier();
        if (local < 16u) { partial[local].y = total; }
        workgroupBarrier();
    }
    var value = 0.0;
    if (lane == 0u) {
        for (var i = 0u; i < LANES; i++) { value += partial[feature + i * FEATURES].x; }
        var total = 0.0;
        if (NORM == 1u) {
            for (var i = 0u; i < 16u; i++) { total += partial[i].y; }
        }
        value *= norm_factor(total);
    }
    workgroupBarrier();
    if (lane == 0u) { partial[local].x = value; }
    workgroupBarrier();
    // Four features are finished together: the gated MLP joins two and two.
    if (local < FEATURES / 4u) {
        let i = 4u * local;
        finish(row, group.x * FEATURES + i, vec4<f32>(partial[i].x, partial[i + 1u].x, partial[i + 2u].x, partial[i + 3u].x));
    }
}
