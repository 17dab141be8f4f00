// What a workgroup of attention works on: four queries of one KV group. Whoever imports this has `params` with `out_stride` and
// `head_dim`.
const CHUNK = 16u;          // tokens of a chunk
const NONE = -1e30;         // below every score

// A chunk's weight as maximum and sum, the same in whatever order chunks come.
fn weight_of(top: f32, sum: f32) -> vec2<f32> {
    return select(vec2<f32>(NONE, 0.0), vec2<f32>(top + log(sum), 1.0), sum > 0.0);
}

// What a workgroup works on.
struct Task {
    group: u32,
    split: u32,
    row: vec4<u32>,         // of each query; queries past the last repeat it
    head: vec4<u32>,
    real: vec4<bool>,
    pos: vec4<u32>,         // last key in sight
    seen: vec4<u32>,        // first key in the window
    table: u32,
    begin: u32,             // chunks
    end: u32,
}

// Where a query's output begins, in quads.
fn out_of(task: Task, j: u32) -> u32 { return (task.row[j] * params.out_stride + task.head[j] * params.head_dim) / 4u; }
