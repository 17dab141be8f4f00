// Joins the parts of split attention; one thread four elements of a (row, head).
#import shared/attention

@group(0) @binding(2) var<storage, read> partial: array<vec4<f32>>;         // (rows, heads, splits, head_dim)
@group(0) @binding(3) var<storage, read> split_ml: array<vec2<f32>>;        // (rows, heads, splits): maximum, sum
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;       // (rows, out_stride)
@group(0) @binding(5) var<storage, read_write> row_ml: array<vec2<f32>>;    // (rows, heads): maximum, sum

@compute @workgroup_size(64)
fn attn_merge(@builtin(global_invocation_id) gid: vec3<u32>) {
    let quads = params.head_dim / 4u;
    let d = gid.x % quads;
    let head = gid.x / quads;
    let row = gid.y;
    if (head >= params.heads || row >= step.rows) { return; }
    let splits = step.splits;
    let at = (row * params.heads + head) * splits;
    var m = NONE;
    for (var s = 0u; s < splits; s++) { m = max(m, split_ml[at + s].x); }
    var l = 0.0;
    var acc = vec4<f32>(0.0);
    for (var s = 0u; s < splits; s++) {
        let ml = split_ml[at + s];
        // An empty part never wrote its values.
        if (ml.y > 0.0) {
            let e = exp(ml.x - m);
            l += ml.y * e;
            acc += partial[(at + s) * quads + d] * e;
        }
    }
    out[(row * params.out_stride + head * params.head_dim) / 4u + d] = acc / l;
    if (d == 0u) { row_ml[row * params.heads + head] = vec2<f32>(m, l); }
}
