// Pages of 32 bits, lane by lane.
#import shared/lanes/sums

// Scores of tokens `lane` and `lane + 8`.
fn scores32(at: u32, lane: u32) {
    let last = params.head_dim / 8u - 1u;
    let i0 = at + min(0u, last) * 32u + lane;
    take0(bitcast<vec4<f32>>(pages[i0]), bitcast<vec4<f32>>(pages[i0 + 16u]), bitcast<vec4<f32>>(pages[i0 + 8u]), bitcast<vec4<f32>>(pages[i0 + 24u]));
    let i1 = at + min(1u, last) * 32u + lane;
    take1(bitcast<vec4<f32>>(pages[i1]), bitcast<vec4<f32>>(pages[i1 + 16u]), bitcast<vec4<f32>>(pages[i1 + 8u]), bitcast<vec4<f32>>(pages[i1 + 24u]));
    let i2 = at + min(2u, last) * 32u + lane;
    take2(bitcast<vec4<f32>>(pages[i2]), bitcast<vec4<f32>>(pages[i2 + 16u]), bitcast<vec4<f32>>(pages[i2 + 8u]), bitcast<vec4<f32>>(pages[i2 + 24u]));
    let i3 = at + min(3u, last) * 32u + lane;
    take3(bitcast<vec4<f32>>(pages[i3]), bitcast<vec4<f32>>(pages[i3 + 16u]), bitcast<vec4<f32>>(pages[i3 + 8u]), bitcast<vec4<f32>>(pages[i3 + 24u]));
    let i4 = at + min(4u, last) * 32u + lane;
    take4(bitcast<vec4<f32>>(pages[i4]), bitcast<vec4<f32>>(pages[i4 + 16u]), bitcast<vec4<f32>>(pages[i4 + 8u]), bitcast<vec4<f32>>(pages[i4 + 24u]));
    let i5 = at + min(5u, last) * 32u + lane;
    take5(bitcast<vec4<f32>>(pages[i5]), bitcast<vec4<f32>>(pages[i5 + 16u]), bitcast<vec4<f32>>(pages[i5 + 8u]), bitcast<vec4<f32>>(pages[i5 + 24u]));
    let i6 = at + min(6u, last) * 32u + lane;
    take6(bitcast<vec4<f32>>(pages[i6]), bitcast<vec4<f32>>(pages[i6 + 16u]), bitcast<vec4<f32>>(pages[i6 + 8u]), bitcast<vec4<f32>>(pages[i6 + 24u]));
    let i7 = at + min(7u, last) * 32u + lane;
    take7(bitcast<vec4<f32>>(pages[i7]), bitcast<vec4<f32>>(pages[i7 + 16u]), bitcast<vec4<f32>>(pages[i7 + 8u]), bitcast<vec4<f32>>(pages[i7 + 24u]));
}

// The lane's dimensions of eight tokens from t on, weighted with p, tokens past `last` repeating it.
fn values32(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = min(lane, octets - 1u);
    let i0 = at + (min(t + 0u, last) * octets + o) * 2u;
    give0(bitcast<vec4<f32>>(pages[i0]), bitcast<vec4<f32>>(pages[i0 + 1u]));
    let i1 = at + (min(t + 1u, last) * octets + o) * 2u;
    give1(bitcast<vec4<f32>>(pages[i1]), bitcast<vec4<f32>>(pages[i1 + 1u]));
    let i2 = at + (min(t + 2u, last) * octets + o) * 2u;
    give2(bitcast<vec4<f32>>(pages[i2]), bitcast<vec4<f32>>(pages[i2 + 1u]));
    let i3 = at + (min(t + 3u, last) * octets + o) * 2u;
    give3(bitcast<vec4<f32>>(pages[i3]), bitcast<vec4<f32>>(pages[i3 + 1u]));
    let i4 = at + (min(t + 4u, last) * octets + o) * 2u;
    give4(bitcast<vec4<f32>>(pages[i4]), bitcast<vec4<f32>>(pages[i4 + 1u]));
    let i5 = at + (min(t + 5u, last) * octets + o) * 2u;
    give5(bitcast<vec4<f32>>(pages[i5]), bitcast<vec4<f32>>(pages[i5 + 1u]));
    let i6 = at + (min(t + 6u, last) * octets + o) * 2u;
    give6(bitcast<vec4<f32>>(pages[i6]), bitcast<vec4<f32>>(pages[i6 + 1u]));
    let i7 = at + (min(t + 7u, last) * octets + o) * 2u;
    give7(bitcast<vec4<f32>>(pages[i7]), bitcast<vec4<f32>>(pages[i7 + 1u]));
}

// All chunks of this width. Without any nothing changes.
//
// llvmpipe seems to run the body of a loop once more after its condition has failed, so this one asks at its end, and has one turn
// without chunks too: no token is in sight then, but zero times what the pages hold may be no number.
fn sum_kv32(lane: u32, task: Task, most: u32) {
    var c = next_of(task.begin, task, W32);
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
        scores32(keys, lane);
        soften(c, lane, task, there);
        p = p0;
        values32(vals, lane, 0u, last);
        p = p1;
        values32(vals, lane, 8u, last);
        continuing {
            c = next_of(c + 1u, task, W32);
            break if c >= task.end;
        }
    }
    if (!any) { put_back(); }
}
