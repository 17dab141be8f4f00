// Gated MLP: h = act(gate) · up, written over gate. SwiGLU and GeGLU as in Shazeer, arXiv 2002.05202.
#import shared/step
#import shared/activation

struct GluParams {
    n: u32,         // neurons: a prefix
    stride: u32,    // neurons between two rows
    gelu: u32,      // 1: tanh approximation of GELU, else SiLU
    pad: u32,
}
@group(0) @binding(1) var<uniform> params: GluParams;
@group(0) @binding(2) var<storage, read> up: array<f32>;            // (rows, stride)
@group(0) @binding(3) var<storage, read_write> gate: array<f32>;    // (rows, stride)

@compute @workgroup_size(64)
fn glu(@builtin(global_invocation_id) gid: vec3<u32>) {
    if (gid.x >= params.n || gid.y >= step.rows) { return; }
    let i = gid.y * params.stride + gid.x;
    let g = gate[i];
    let a = select(silu(g), gelu(g), params.gelu == 1u);
    gate[i] = a * up[i];
}
