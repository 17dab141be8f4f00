// Each chunk's share of the probability, summed over the rows of its context and over heads, added to `density`
// (LLMS, arXiv 2403.11805: the density of a chunk; dividing by rows, heads and layers is left to the reader).
#import shared/attention

@group(0) @binding(2) var<storage, read> rows: array<vec4<u32>>;            // (rows): position, chunk table
@group(0) @binding(3) var<storage, read> row_ml: array<vec2<f32>>;          // (rows, heads): maximum, sum
@group(0) @binding(4) var<storage, read> chunk_ml: array<vec2<f32>>;        // (rows, heads, batch_chunks): likewise
@group(0) @binding(5) var<storage, read_write> density: array<f32>;         // parallel to the chunk tables

@compute @workgroup_size(64)
fn attn_share(@builtin(global_invocation_id) gid: vec3<u32>) {
    let chunk = gid.x;
    let row = min(gid.y, step.rows - 1u);
    let table = rows[row].y;
    // Rows of one context lie together; the first of them does the work, so that no two threads add to one chunk.
    let mine = gid.y < step.rows && (row == 0u || rows[max(row, 1u) - 1u].y != table);
    var sum = 0.0;
    // No lane leaves early: whoever has nothing to do has no turns of the loop.
    for (var r = row; r < select(0u, step.rows, mine); r++) {
        let place = rows[r];
        var first = 0u;
        if (params.window > 0u && place.x + 1u > params.window) { first = (place.x + 1u - params.window) / CHUNK; }
        let seen = place.y == table && chunk >= first && chunk <= place.x / CHUNK;
        let heads = select(0u, params.heads, seen);
        for (var head = 0u; head < heads; head++) {
            let all = row_ml[r * params.heads + head];
            let own = chunk_ml[(r * params.heads + head) * step.batch_chunks + chunk];
            sum += own.y * exp(own.x - all.x) / all.y;
        }
    }
    if (sum > 0.0) { density[table + chunk] += sum; }
}
