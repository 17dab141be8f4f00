// Rows of the embedding table for the batch's tokens, decoded and scaled. The table may be bound in parts: each part
// writes the rows of its own tokens only.
#import shared/step
#import shared/weights

struct EmbedParams {
    pieces: u32,    // dim / 32
    row_block: u32,
    first: u32,     // first token of this part
    count: u32,     // tokens of this part
    scale: f32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}
@group(0) @binding(1) var<uniform> params: EmbedParams;
@group(0) @binding(2) var<storage, read> tokens: array<u32>;            // (rows)
@group(0) @binding(3) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> ws: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;     // (rows, dim)

@compute @workgroup_size(64)
fn embed(@builtin(global_invocation_id) gid: vec3<u32>) {
    let piece = gid.x;
    let row = gid.y;
    if (piece >= params.pieces || row >= step.rows) { return; }
    let token = tokens[row];
    if (token < params.first || token >= params.first + params.count) { return; }
    let t = token - params.first;
    let panels = params.pieces / SUBS;
    let base = region((t / params.row_block) * panels + piece / SUBS, params.row_block);
    let s = fetch(base, params.row_block, t % params.row_block, piece % SUBS);
    let o = (row * params.pieces + piece) * 8u;
    for (var i = 0u; i < 8u; i++) { y[o + i] = quad(s, i) * params.scale; }
}
