// How matvec sums: one thread four output features side by side. A subgroup of eight streams through whole regions, and the
// single words of four rows come in one load: on llvmpipe a load goes lane by lane and costs more than the products. With
// subgroups, each lane of eight loads one quad of x and hands it to the others. Codes are multiplied unscaled; scale and
// minimum follow once for each 32 (or 16) elements.
#import shared/matmul

override THREADS: u32 = 32u;

// Products of four rows' codes of elements 4 i to 4 i + 3, each row's still to be added up across.
struct Sums { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32> }

fn start(f: Four, i: u32, v: vec4<f32>) -> Sums {
    return Sums(codes(f.a, i) * v, codes(f.b, i) * v, codes(f.c, i) * v, codes(f.d, i) * v);
}

fn more(s: Sums, f: Four, i: u32, v: vec4<f32>) -> Sums {
    return Sums(s.a + codes(f.a, i) * v, s.b + codes(f.b, i) * v, s.c + codes(f.c, i) * v, s.d + codes(f.d, i) * v);
}

fn across(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

// What elements from 4 i on add to the four rows, given their sums and the sum of their x.
fn scaled(f: Four, i: u32, s: Sums, xs: f32) -> vec4<f32> {
    let a = scale(f.a, i);
    let b = scale(f.b, i);
    let c = scale(f.c, i);
    let d = scale(f.d, i);
    return vec4<f32>(a.x, b.x, c.x, d.x) * vec4<f32>(across(s.a), across(s.b), across(s.c), across(s.d))
        + vec4<f32>(a.y, b.y, c.y, d.y) * xs;
}

// Rows n to n + 3 of W times x, normed; rows past the end repeat the last four. Nobody may have left early.
fn four_features(
    n: u32,
    row: u32,
#ifdef SUBGROUPS
    lane: u32,
#endif
) -> vec4<f32> {
    let m = min(n, (params.n - 1u) & ~3u);
    let rb = params.row_block;
    let first = (m / rb) * params.panels_stored;
    let r = m % rb;
    var o = (row * params.x_stride + params.x_offset) / 4u;
    var g = 0u;
#ifdef SUBGROUPS
    o += lane & 7u;
    g += lane & 7u;
#endif
    var acc = vec4<f32>(0.0);
    var squares = 0.0;
    // llvmpipe seems to run the body of a loop once more after its condition has failed, so this one, of a turn at least, asks at its
    // end.
    var piece = 0u;
    loop {
        let f = fetch4(region(first + piece / SUBS, rb), rb, r, piece % SUBS);
#ifdef SUBGROUPS
        let u = x[o];
        squares += dot(u, u);
        let v = gained(u, g);
        let v0 = subgroupBroadcast(v, 0u);
        let v1 = subgroupBroadcast(v, 1u);
        let v2 = subgroupBroadcast(v, 2u);
        let v3 = subgroupBroadcast(v, 3u);
        let v4 = subgroupBroadcast(v, 4u);
        let v5 = subgroupBroadcast(v, 5u);
        let v6 = subgroupBroadcast(v, 6u);
        let v7 = subgroupBroadcast(v, 7u);
#else
        let v0 = gained(x[o], g);
        let v1 = gained(x[o + 1u], g + 1u);
        let v2 = gained(x[o + 2u], g + 2u);
        let v3 = gained(x[o + 3u], g + 3u);
        let v4 = gained(x[o + 4u], g + 4u);
        let v5 = gained(x[o + 5u], g + 5u);
        let v6 = gained(x[o + 6u], g + 6u);
        let v7 = gained(x[o + 7u], g + 7u);
        if (NORM == 1u) {
            for (var i = 0u; i < 8u; i++) { squares += dot(x[o + i], x[o + i]); }
        }
#endif
        // A subgroupAdd takes llvmpipe longer.
        let xs = across(((v0 + v1) + (v2 + v3)) + ((v4 + v5) + (v6 + v7)));
        var s = start(f, 0u, v0);
        s = more(s, f, 1u, v1);
        s = more(s, f, 2u, v2);
        s = more(s, f, 3u, v3);
#ifdef W_Q6_K
        acc += scaled(f, 0u, s, 0.0);
        s = start(f, 4u, v4);
#else
        s = more(s, f, 4u, v4);
#endif
        s = more(s, f, 5u, v5);
        s = more(s, f, 6u, v6);
        s = more(s, f, 7u, v7);
        acc += scaled(f, 4u, s, xs);
        o += 8u;
        g += 8u;
        continuing {
            piece++;
            break if piece >= params.panels * SUBS;
        }
    }
#ifdef SUBGROUPS
    // Lanes past the eighth hold the same again, and a workgroup need not fill its last subgroup.
    squares = subgroupAdd(select(0.0, squares, lane < 8u));
#endif
    return acc * norm_factor(squares);
}
