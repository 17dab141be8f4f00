// The form for GPUs: a thread a (token, query) for scores, a (quad of dimensions, query) for values.
#import shared/kv_any
#import shared/hadamard

const QUADS = 4u;                               // quads of a thread: heads of 256 dimensions at most
var<workgroup> shared_score: array<f32, 64>;    // (token, query)
var<workgroup> shared_p: array<f32, 64>;
var<workgroup> shared_scaled: array<f32, 64>;   // times the value's scale
var<workgroup> shared_offset: array<f32, 64>;   // times the value's offset
var<workgroup> shared_out: array<vec4<f32>, 256>;   // (quad, query)

@compute @workgroup_size(64)
fn attn_split(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let task = task_of(wg.x);
    let j = local % 4u;
    let t = local / 4u;
    let quads = params.head_dim / 4u;
    let row = task.row[j];
    let head = task.head[j];
    let pos = task.pos[j];
    let seen = task.seen[j];
    let most = max(max(task.pos.x, task.pos.y), max(task.pos.z, task.pos.w));
    let from_q = (row * params.q_stride + head * params.head_dim) / 4u;
    var acc = array<vec4<f32>, QUADS>();
    var m = NONE;
    var l = 0.0;
    var offsets = 0.0;
    for (var c = task.begin; c < task.end; c++) {
        let entry = tables[task.table + c];
        let width = width_of(entry);
        let keys = plane_at(entry, 0u, task.group, params.groups, params.head_dim);
        let vals = plane_at(entry, 1u, task.group, params.groups, params.head_dim);
        let meta_k = meta_of(width, keys, t, params.head_dim);
        var s = 0.0;
        var sum = 0.0;
        var mid = 0.0;
        let centred = CENTRES > 0u && width != W16 && width != W32;
        for (var i = 0u; i < quads; i++) {
            let e = q[from_q + i];
            if (centred) {
                let u = piece(centre_at(CENTRES, c, task.group, params.groups, quads / 2u, i / 2u));
                mid += dot(e, halves4(select(u.xy, u.zw, (i & 1u) == 1u)));
            }
            s += dot(e, key_quad(width, keys, t, i));
            sum += (e.x + e.y) + (e.z + e.w);
        }
        let at = c * CHUNK + t;
        let ok = at >= seen && at <= pos;
        s = select(NONE, (s * meta_k.x + sum * meta_k.y + mid) * params.scale, ok);
        shared_score[local] = s;
        workgroupBarrier();
        var next = m;
        for (var i = 0u; i < CHUNK; i++) { next = max(next, shared_score[4u * i + j]); }
        let p = select(0.0, exp(s - next), ok);
        // Past the last key there may be anything: it is read neither as meta nor, below, as a value.
        let meta_v = meta_of(width, vals, t, params.head_dim);
        shared_p[local] = p;
        shared_scaled[local] = p * meta_v.x;
        shared_offset[local] = p * meta_v.y;
        workgroupBarrier();
        let shrink = exp(m - next);
        var cl = 0.0;
        offsets *= shrink;
        for (var i = 0u; i < CHUNK; i++) {
            cl += shared_p[4u * i + j];
            offsets += shared_offset[4u * i + j];
        }
        for (var n = 0u; n < QUADS; n++) {
            let quad = t + 16u * n;
            if (quad < quads) {
                var sum_v = acc[n] * shrink;
                for (var i = 0u; i < CHUNK; i++) {
                    let token = min(i, most - min(most, c * CHUNK));
                    sum_v += shared_scaled[4u * i + j] * value_quad(width, vals, token, quad, params.head_dim / 8u);
                }
                acc[n] = sum_v;
            }
        }
        l = l * shrink + cl;
        m = next;
        let sight = c * CHUNK <= pos && c * CHUNK + CHUNK > seen;
        if (step.density == 1u && t == 0u && task.real[j] && sight) {
            chunk_ml[(row * params.heads + head) * step.batch_chunks + c] = weight_of(next, cl);
        }
    }
    for (var n = 0u; n < QUADS; n++) {
        acc[n] += vec4<f32>(offsets);
        shared_out[(t + 16u * n) * 4u + j] = acc[n];
    }
    workgroupBarrier();
    let part = part_of(task, j);
    // An empty part writes no values.
    let store = task.real[j] && l > 0.0;
    for (var n = 0u; n < QUADS; n++) {
        let quad = t + 16u * n;
        var e = acc[n];
        if (params.rotate > 0u && quad < quads) {
            let block = params.rotate / 4u;
            e = vec4<f32>(0.0);
            for (var i = 0u; i < block; i++) {
                e += sign_of(quad % block, i) * shared_out[(quad - quad % block + i) * 4u + j];
            }
            e = hadamard4(e) * inverseSqrt(f32(params.rotate));
        }
        if (store && quad < quads) {
            if (alone()) { out[out_of(task, j) + quad] = e / l; } else { partial[part * quads + quad] = e; }
        }
    }
    if (task.real[j] && t == 0u) {
        if (alone()) { row_ml[row * params.heads + head] = vec2<f32>(m, l); } else { split_ml[part] = vec2<f32>(m, l); }
    }
}
