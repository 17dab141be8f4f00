// y = x: the most bytes a second that a kernel can move, half of them read.
#import shared/roofline

@compute @workgroup_size(64)
fn roof_copy(@builtin(global_invocation_id) gid: vec3<u32>) {
    if (gid.x < params.count) { y[gid.x] = x[gid.x]; }
}
