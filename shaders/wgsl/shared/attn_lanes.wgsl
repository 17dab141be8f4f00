// The form for CPUs: subgroups of eight lanes, a loop for each width.
#ifdef KV32
#import shared/lanes/kv32
#endif
#ifdef KV16
#import shared/lanes/kv16
#endif
#ifdef KV8
#import shared/lanes/kv8
#endif
#ifdef KV4
#import shared/lanes/kv4
#endif
#ifdef KV2
#import shared/lanes/kv2
#endif

// The lane's eight features of each query, for octet o of the head.
fn load_q(o: u32, task: Task) {
    let there = o < params.head_dim / 8u;
    let at = (task.row * params.q_stride + task.head * params.head_dim) / 4u + vec4<u32>(select(0u, 2u * o, there));
    let scale = select(0.0, params.scale, there);
    ql[0u] = q[at.x] * scale;
    qh[0u] = q[at.x + 1u] * scale;
    ql[1u] = q[at.y] * scale;
    qh[1u] = q[at.y + 1u] * scale;
    ql[2u] = q[at.z] * scale;
    qh[2u] = q[at.z + 1u] * scale;
    ql[3u] = q[at.w] * scale;
    qh[3u] = q[at.w + 1u] * scale;
}

// The lane's dimensions o of one query. An empty part writes no values.
fn store_one(i: u32, j: u32, o: u32, task: Task, sum: f32) {
    let octets = params.head_dim / 8u;
    let at = part_of(task, j);
    let mine = task.real[j] && sum > 0.0 && o < octets;
    if (mine && !alone()) {
        partial[(at * octets + o) * 2u] = al[i];
        partial[(at * octets + o) * 2u + 1u] = ah[i];
    }
    if (mine && alone()) {
        let to = out_of(task, j) + 2u * o;
        out[to] = al[i] / sum;
        out[to + 1u] = ah[i] / sum;
    }
}

fn store_four(o: u32, task: Task, sums: vec4<f32>) {
    store_one(0u, 0u, o, task, sums.x);
    store_one(1u, 1u, o, task, sums.y);
    store_one(2u, 2u, o, task, sums.z);
    store_one(3u, 3u, o, task, sums.w);
}

@compute @workgroup_size(8)
fn attn_split(@builtin(workgroup_id) wg: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let task = task_of(wg.x);
    load_q(lane, task);
#ifdef QUANTISED
    q_sum = across_sum(features_sum());
#endif
    m = vec4<f32>(NONE);
    let most = max(max(task.pos.x, task.pos.y), max(task.pos.z, task.pos.w));
#ifdef KV32
    sum_kv32(lane, task, most);
#endif
#ifdef KV16
    sum_kv16(lane, task, most);
#endif
    // Offsets of values come with these.
#ifdef KV8
    sum_kv8(lane, task, most);
#endif
#ifdef KV4
    sum_kv4(lane, task, most);
#endif
#ifdef KV2
    sum_kv2(lane, task, most);
#endif
    let l_all = across_sum(l);
    let off = across_sum(offsets);
    turn_four(off, lane);
    store_four(lane, task, l_all);
    let j = lane & 3u;
    let ml = vec2<f32>(m[j], l_all[j]);
    if (lane < 4u && task.real[j] && !alone()) { split_ml[part_of(task, j)] = ml; }
    // The same again, if ever: what is touched must seem to matter.
    if (touched == 0x9e3779b9u && lane < 4u && task.real[j] && !alone()) { split_ml[part_of(task, j)] = ml; }
    if (lane < 4u && task.real[j] && alone()) { row_ml[task.row[j] * params.heads + task.head[j]] = ml; }
}
