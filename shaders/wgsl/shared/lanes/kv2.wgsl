// Pages of 2 bits, lane by lane.
#import shared/lanes/quantised

// Scores of tokens `lane` and `lane + 8`.
fn scores2(at: u32, lane: u32) {
    let i0 = at + lane;
    let u = pages[i0];
    let w = pages[i0 + 8u];
    take0(crumbs4(u.x >> 0u), crumbs4(u.x >> 8u), crumbs4(w.x >> 0u), crumbs4(w.x >> 8u));
    take1(crumbs4(u.x >> 16u), crumbs4(u.x >> 24u), crumbs4(w.x >> 16u), crumbs4(w.x >> 24u));
    take2(crumbs4(u.y >> 0u), crumbs4(u.y >> 8u), crumbs4(w.y >> 0u), crumbs4(w.y >> 8u));
    take3(crumbs4(u.y >> 16u), crumbs4(u.y >> 24u), crumbs4(w.y >> 16u), crumbs4(w.y >> 24u));
    take4(crumbs4(u.z >> 0u), crumbs4(u.z >> 8u), crumbs4(w.z >> 0u), crumbs4(w.z >> 8u));
    take5(crumbs4(u.z >> 16u), crumbs4(u.z >> 24u), crumbs4(w.z >> 16u), crumbs4(w.z >> 24u));
    take6(crumbs4(u.w >> 0u), crumbs4(u.w >> 8u), crumbs4(w.w >> 0u), crumbs4(w.w >> 8u));
    take7(crumbs4(u.w >> 16u), crumbs4(u.w >> 24u), crumbs4(w.w >> 16u), crumbs4(w.w >> 24u));
}

// The lane's dimensions of eight tokens from t on, weighted with p; `last` is for unsealed chunks.
fn values2(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = at + min(lane, octets - 1u);
    let u = pages[o + (t / 8u) * octets];
    give0(crumbs4(u.x >> 0u), crumbs4(u.x >> 8u));
    give1(crumbs4(u.x >> 16u), crumbs4(u.x >> 24u));
    give2(crumbs4(u.y >> 0u), crumbs4(u.y >> 8u));
    give3(crumbs4(u.y >> 16u), crumbs4(u.y >> 24u));
    give4(crumbs4(u.z >> 0u), crumbs4(u.z >> 8u));
    give5(crumbs4(u.z >> 16u), crumbs4(u.z >> 24u));
    give6(crumbs4(u.w >> 0u), crumbs4(u.w >> 8u));
    give7(crumbs4(u.w >> 16u), crumbs4(u.w >> 24u));
}

// All chunks of this width. Without any nothing changes.
//
// llvmpipe seems to run the body of a loop once more after its condition has failed, so this one asks at its end, and has one turn
// without chunks too: no token is in sight then, but zero times what the pages hold may be no number.
fn sum_kv2(lane: u32, task: Task, most: u32) {
    var c = next_of(task.begin, task, W2);
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
        scores2(keys, lane);
        soften_quantised(W2, c, lane, task, there, keys, vals);
        p = p0;
        values2(vals, lane, 0u, last);
        p = p1;
        values2(vals, lane, 8u, last);
        continuing {
            c = next_of(c + 1u, task, W2);
            break if c >= task.end;
        }
    }
    if (!any) { put_back(); }
}
