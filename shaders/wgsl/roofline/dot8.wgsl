// Dot products of four 8-bit integers on registers alone: two chains of four a thread.
#import shared/roofline

fn dots(acc: vec4<i32>, v: vec4<u32>, k: u32) -> vec4<i32> {
    return acc + vec4<i32>(
        dot4I8Packed(v.x ^ u32(acc.x), k),
        dot4I8Packed(v.y ^ u32(acc.y), k),
        dot4I8Packed(v.z ^ u32(acc.z), k),
        dot4I8Packed(v.w ^ u32(acc.w), k));
}

@compute @workgroup_size(64)
fn roof_dot8(@builtin(global_invocation_id) gid: vec3<u32>) {
    let v = x[min(gid.x, params.count - 1u)];
    var a = vec4<i32>(0);
    var b = vec4<i32>(1);
    for (var t = 0u; t < params.turns; t++) {
        a = dots(a, v, v.x);
        b = dots(b, v, v.y);
        a = dots(a, v, v.z);
        b = dots(b, v, v.w);
    }
    if (gid.x < params.count) { y[gid.x] = bitcast<vec4<u32>>(a + b); }
}
