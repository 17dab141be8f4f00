// Multiply-adds on registers alone: eight chains of four numbers a thread, which hide the latency of one another. The
// factor comes from memory, so that no compiler can know the result. Most products a second; with f16 on halves.
#ifdef F16
enable f16;
#endif
#import shared/roofline

#ifdef F16
alias number = vec4<f16>;
#else
alias number = vec4<f32>;
#endif

@compute @workgroup_size(64)
fn roof_fma(@builtin(global_invocation_id) gid: vec3<u32>) {
    let i = min(gid.x, params.count - 1u);
    let m = number(bitcast<vec4<f32>>(x[i]));
    var a = m;
    var b = m * 2.0;
    var c = m * 3.0;
    var d = m * 4.0;
    var e = m * 5.0;
    var f = m * 6.0;
    var g = m * 7.0;
    var h = m * 8.0;
    for (var t = 0u; t < params.turns; t++) {
        a = fma(a, m, m);
        b = fma(b, m, m);
        c = fma(c, m, m);
        d = fma(d, m, m);
        e = fma(e, m, m);
        f = fma(f, m, m);
        g = fma(g, m, m);
        h = fma(h, m, m);
    }
    let sum = ((a + b) + (c + d)) + ((e + f) + (g + h));
    if (gid.x < params.count) { y[gid.x] = bitcast<vec4<u32>>(vec4<f32>(sum)); }
}
