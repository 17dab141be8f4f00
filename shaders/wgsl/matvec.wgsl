// One thread an output feature, one row of the batch a workgroup row: decode on adapters with few, wide cores.
// Software adapters run this shape best: no barrier, no shared memory.
#import shared/matmul

@compute @workgroup_size(64)
fn matvec(@builtin(global_invocation_id) gid: vec3<u32>) {
    let n = gid.x;
    let row = gid.y;
    if (n >= params.n || row >= batch_rows()) { return; }
    let first = (n / params.row_block) * params.panels_stored;
    let r = n % params.row_block;
    var o = (row * params.x_stride + params.x_offset) / 4u;
    var acc = 0.0;
    for (var piece = 0u; piece < params.panels * SUBS; piece++) {
        let p = piece / SUBS;
        let sub = piece % SUBS;
        let base = region(first + p, params.row_block);
        acc += dot32(fetch(base, params.row_block, r, sub), o);
        o += 8u;
    }
    store(row, n, acc);
}
