// Gated MLP: h = act(gate) · up, written over gate. SwiGLU and GeGLU as in Shazeer, arXiv 2002.05202.
#import shared/step

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
    var a = g / (1.0 + exp(-g));
    if (params.gelu == 1u) {
        // tanh saturates; the clamp keeps exp inside tanh finite on every driver.
        a = 0.5 * g * (1.0 + tanh(clamp(0.7978845608 * (g + 0.044715 * g * g * g), -15.0, 15.0)));
    }
    gate[i] = a * up[i];
}
