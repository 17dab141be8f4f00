// One thread an output feature, eight rows of the batch: each decoded weight is used eight times. Prefill, and decode of
// several contexts. The x loads are the same for the whole workgroup; no barrier, no shared memory.
#import shared/matmul

@compute @workgroup_size(64)
fn matmul(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let n = gid.x;
    let rows = batch_rows();
    let row = group.y * 8u;
    if (n >= params.n || row >= rows) { return; }
    let first = (n / params.row_block) * params.panels_stored;
    let r = n % params.row_block;
    // Rows past the end repeat the last one; they are computed and not stored.
    let lo = min(vec4<u32>(row, row + 1u, row + 2u, row + 3u), vec4<u32>(rows - 1u));
    let hi = min(vec4<u32>(row + 4u, row + 5u, row + 6u, row + 7u), vec4<u32>(rows - 1u));
    var olo = (lo * params.x_stride + params.x_offset) / 4u;
    var ohi = (hi * params.x_stride + params.x_offset) / 4u;
    var alo = vec4<f32>(0.0);
    var ahi = vec4<f32>(0.0);
    for (var piece = 0u; piece < params.panels * SUBS; piece++) {
        let p = piece / SUBS;
        let sub = piece % SUBS;
        let base = region(first + p, params.row_block);
        let s = fetch(base, params.row_block, r, sub);
        for (var i = 0u; i < 8u; i++) {
            let q = quad(s, i);
            alo += vec4<f32>(dot(q, x[olo.x + i]), dot(q, x[olo.y + i]), dot(q, x[olo.z + i]), dot(q, x[olo.w + i]));
            ahi += vec4<f32>(dot(q, x[ohi.x + i]), dot(q, x[ohi.y + i]), dot(q, x[ohi.z + i]), dot(q, x[ohi.w + i]));
        }
        olo += vec4<u32>(8u);
        ohi += vec4<u32>(8u);
    }
    finish(row, rows, n, alo, ahi);
}
