// The rows of x that logits are wanted for: y[i] = x[outs[i]].
#import shared/step

struct GatherParams { dim: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(1) var<uniform> params: GatherParams;
@group(0) @binding(2) var<storage, read> outs: array<vec4<u32>>;    // (out_rows): batch row
@group(0) @binding(3) var<storage, read> x: array<f32>;             // (rows, dim)
@group(0) @binding(4) var<storage, read_write> y: array<f32>;       // (out_rows, dim)

@compute @workgroup_size(64)
fn gather_rows(@builtin(global_invocation_id) gid: vec3<u32>) {
    if (gid.x >= params.dim || gid.y >= step.out_rows) { return; }
    y[gid.y * params.dim + gid.x] = x[outs[gid.y].x * params.dim + gid.x];
}
