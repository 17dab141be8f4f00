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
    for (var p = 0u; p < params.panels; p++) {
        let base = region(first + p, params.row_block);
        for (var sub = 0u; sub < SUBS; sub++) {
            let b = decode(base, params.row_block, r, sub);
            alo += vec4<f32>(dot32(b, olo.x), dot32(b, olo.y), dot32(b, olo.z), dot32(b, olo.w));
            ahi += vec4<f32>(dot32(b, ohi.x), dot32(b, ohi.y), dot32(b, ohi.z), dot32(b, ohi.w));
            olo += vec4<u32>(8u);
            ohi += vec4<u32>(8u);
        }
    }
    store(row, n, alo.x);
    if (row + 1u < rows) { store(row + 1u, n, alo.y); }
    if (row + 2u < rows) { store(row + 2u, n, alo.z); }
    if (row + 3u < rows) { store(row + 3u, n, alo.w); }
    if (row + 4u < rows) { store(row + 4u, n, ahi.x); }
    if (row + 5u < rows) { store(row + 5u, n, ahi.y); }
    if (row + 6u < rows) { store(row + 6u, n, ahi.z); }
    if (row + 7u < rows) { store(row + 7u, n, ahi.w); }
}
