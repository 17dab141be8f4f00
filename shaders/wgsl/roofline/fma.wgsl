// Multiply-adds on registers alone: two chains of four numbers a thread, which a core's latency and its registers both
// bear (eight chains of four spill on software adapters). The factor comes from memory, so that no compiler can know the
// result. With f16 on halves.
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
    for (var t = 0u; t < params.turns; t++) {
        a = fma(a, m, m);
        b = fma(b, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
        a = fma(a, m, m);
        b = fma(b, m, m);
    }
    if (gid.x < params.count) { y[gid.x] = bitcast<vec4<u32>>(vec4<f32>(a + b)); }
}
