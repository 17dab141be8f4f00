// Pages of 4 bits, lane by lane.
#import shared/lanes/quantised

// Scores of tokens `lane` and `lane + 8`.
fn scores4(at: u32, lane: u32) {
    let last = params.head_dim / 8u - 1u;
    let i0 = at + min(0u, last / 4u) * 16u + lane;
    let u0 = pages[i0];
    let w0 = pages[i0 + 8u];
    take0(nibbles4(u0.x), nibbles4(u0.x >> 16u), nibbles4(w0.x), nibbles4(w0.x >> 16u));
    take1(nibbles4(u0.y), nibbles4(u0.y >> 16u), nibbles4(w0.y), nibbles4(w0.y >> 16u));
    take2(nibbles4(u0.z), nibbles4(u0.z >> 16u), nibbles4(w0.z), nibbles4(w0.z >> 16u));
    take3(nibbles4(u0.w), nibbles4(u0.w >> 16u), nibbles4(w0.w), nibbles4(w0.w >> 16u));
    let i1 = at + min(1u, last / 4u) * 16u + lane;
    let u1 = pages[i1];
    let w1 = pages[i1 + 8u];
    take4(nibbles4(u1.x), nibbles4(u1.x >> 16u), nibbles4(w1.x), nibbles4(w1.x >> 16u));
    take5(nibbles4(u1.y), nibbles4(u1.y >> 16u), nibbles4(w1.y), nibbles4(w1.y >> 16u));
    take6(nibbles4(u1.z), nibbles4(u1.z >> 16u), nibbles4(w1.z), nibbles4(w1.z >> 16u));
    take7(nibbles4(u1.w), nibbles4(u1.w >> 16u), nibbles4(w1.w), nibbles4(w1.w >> 16u));
}

// The lane's dimensions of eight tokens from t on, weighted with p; `last` is for unsealed chunks.
fn values4(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = at + min(lane, octets - 1u);
    let u0 = pages[o + (t / 4u + 0u) * octets];
    give0(nibbles4(u0.x), nibbles4(u0.x >> 16u));
    give1(nibbles4(u0.y), nibbles4(u0.y >> 16u));
    give2(nibbles4(u0.z), nibbles4(u0.z >> 16u));
    give3(nibbles4(u0.w), nibbles4(u0.w >> 16u));
    let u1 = pages[o + (t / 4u + 1u) * octets];
    give4(nibbles4(u1.x), nibbles4(u1.x >> 16u));
    give5(nibbles4(u1.y), nibbles4(u1.y >> 16u));
    give6(nibbles4(u1.z), nibbles4(u1.z >> 16u));
    give7(nibbles4(u1.w), nibbles4(u1.w >> 16u));
}

// All chunks of this width. Without any nothing changes.
//
// llvmpipe seems to run the body of a loop once more after its condition has failed, so this one asks at its end, and has one turn
// without chunks too: no token is in sight then, but zero times what the pages hold may be no number.
fn sum_kv4(lane: u32, task: Task, most: u32) {
    var c = next_of(task.begin, task, W4);
    let any = c < task.end;
    keep();
    loop {
        let there = c < task.end;
        let entry = tables[task.table + c];
        let keys = plane_at(entry, 0u, task.group, params.groups, params.head_dim);
        let vals = plane_at(entry, 1u, task.group, params.groups, params.head_dim);
        let last = most - c * CHUNK;
        touch(tables[task.table + min(c + 1u, task.end - 1u)], lane, task.group);
        s0 = vec4<f32>(0.0);
        s1 = vec4<f32>(0.0);
        scores4(keys, lane);
        soften_quantised(W4, c, lane, task, there, keys, vals);
        p = p0;
        values4(vals, lane, 0u, last);
        p = p1;
        values4(vals, lane, 8u, last);
        continuing {
            c = next_of(c + 1u, task, W4);
            break if c >= task.end;
        }
    }
    if (!any) { put_back(); }
}
