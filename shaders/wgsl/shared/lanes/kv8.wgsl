// Pages of 8 bits, lane by lane.
#import shared/lanes/quantised

// Scores of tokens `lane` and `lane + 8`.
fn scores8(at: u32, lane: u32) {
    let last = params.head_dim / 8u - 1u;
    let i0 = at + min(0u, last / 2u) * 16u + lane;
    let u0 = pages[i0];
    let w0 = pages[i0 + 8u];
    take0(bytes4(u0.x), bytes4(u0.y), bytes4(w0.x), bytes4(w0.y));
    take1(bytes4(u0.z), bytes4(u0.w), bytes4(w0.z), bytes4(w0.w));
    let i1 = at + min(1u, last / 2u) * 16u + lane;
    let u1 = pages[i1];
    let w1 = pages[i1 + 8u];
    take2(bytes4(u1.x), bytes4(u1.y), bytes4(w1.x), bytes4(w1.y));
    take3(bytes4(u1.z), bytes4(u1.w), bytes4(w1.z), bytes4(w1.w));
    let i2 = at + min(2u, last / 2u) * 16u + lane;
    let u2 = pages[i2];
    let w2 = pages[i2 + 8u];
    take4(bytes4(u2.x), bytes4(u2.y), bytes4(w2.x), bytes4(w2.y));
    take5(bytes4(u2.z), bytes4(u2.w), bytes4(w2.z), bytes4(w2.w));
    let i3 = at + min(3u, last / 2u) * 16u + lane;
    let u3 = pages[i3];
    let w3 = pages[i3 + 8u];
    take6(bytes4(u3.x), bytes4(u3.y), bytes4(w3.x), bytes4(w3.y));
    take7(bytes4(u3.z), bytes4(u3.w), bytes4(w3.z), bytes4(w3.w));
}

// The lane's dimensions of eight tokens from t on, weighted with p; `last` is for unsealed chunks.
fn values8(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = at + min(lane, octets - 1u);
    let u0 = pages[o + (t / 2u + 0u) * octets];
    give0(bytes4(u0.x), bytes4(u0.y));
    give1(bytes4(u0.z), bytes4(u0.w));
    let u1 = pages[o + (t / 2u + 1u) * octets];
    give2(bytes4(u1.x), bytes4(u1.y));
    give3(bytes4(u1.z), bytes4(u1.w));
    let u2 = pages[o + (t / 2u + 2u) * octets];
    give4(bytes4(u2.x), bytes4(u2.y));
    give5(bytes4(u2.z), bytes4(u2.w));
    let u3 = pages[o + (t / 2u + 3u) * octets];
    give6(bytes4(u3.x), bytes4(u3.y));
    give7(bytes4(u3.z), bytes4(u3.w));
}

// All chunks of this width. Without any nothing changes.
//
// llvmpipe seems to run the body of a loop once more after its condition has failed, so this one asks at its end, and has one turn
// without chunks too: no token is in sight then, but zero times what the pages hold may be no number.
fn sum_kv8(lane: u32, task: Task, most: u32) {
    var c = next_of(task.begin, task, W8);
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
        scores8(keys, lane);
        soften_quantised(W8, c, lane, task, there, keys, vals);
        p = p0;
        values8(vals, lane, 0u, last);
        p = p1;
        values8(vals, lane, 8u, last);
        continuing {
            c = next_of(c + 1u, task, W8);
            break if c >= task.end;
        }
    }
    if (!any) { put_back(); }
}
