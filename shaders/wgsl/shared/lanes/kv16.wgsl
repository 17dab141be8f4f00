// Pages of 16 bits, lane by lane.
#import shared/lanes/sums

// What a half's bits are as those of a float: 2^112 times as little, and 0 of a half's subnormals where the CPU takes no subnormal
// floats. The factor is in the queries and weights, so this costs a shift and a mask; unpacking halves was measured to cost more.
const GROWN = 5.192296858534827628530496329220096e33;

fn shrunk4(u: vec2<u32>) -> vec4<f32> {
    let low = bitcast<vec2<i32>>(u << vec2<u32>(16u));
    let high = bitcast<vec2<i32>>(u);
    let bits = vec4<i32>(low.x, high.x, low.y, high.y) >> vec4<u32>(3u);
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(bits) & vec4<u32>(0x8fffe000u));
}

fn scale_queries(by: f32) {
    ql[0u] *= by;
    qh[0u] *= by;
    ql[1u] *= by;
    qh[1u] *= by;
    ql[2u] *= by;
    qh[2u] *= by;
    ql[3u] *= by;
    qh[3u] *= by;
}

// Scores of tokens `lane` and `lane + 8`.
fn scores16(at: u32, lane: u32) {
    let last = params.head_dim / 8u - 1u;
    let i0 = at + min(0u, last) * 16u + lane;
    let u0 = pages[i0];
    let w0 = pages[i0 + 8u];
    take0(shrunk4(u0.xy), shrunk4(u0.zw), shrunk4(w0.xy), shrunk4(w0.zw));
    let i1 = at + min(1u, last) * 16u + lane;
    let u1 = pages[i1];
    let w1 = pages[i1 + 8u];
    take1(shrunk4(u1.xy), shrunk4(u1.zw), shrunk4(w1.xy), shrunk4(w1.zw));
    let i2 = at + min(2u, last) * 16u + lane;
    let u2 = pages[i2];
    let w2 = pages[i2 + 8u];
    take2(shrunk4(u2.xy), shrunk4(u2.zw), shrunk4(w2.xy), shrunk4(w2.zw));
    let i3 = at + min(3u, last) * 16u + lane;
    let u3 = pages[i3];
    let w3 = pages[i3 + 8u];
    take3(shrunk4(u3.xy), shrunk4(u3.zw), shrunk4(w3.xy), shrunk4(w3.zw));
    let i4 = at + min(4u, last) * 16u + lane;
    let u4 = pages[i4];
    let w4 = pages[i4 + 8u];
    take4(shrunk4(u4.xy), shrunk4(u4.zw), shrunk4(w4.xy), shrunk4(w4.zw));
    let i5 = at + min(5u, last) * 16u + lane;
    let u5 = pages[i5];
    let w5 = pages[i5 + 8u];
    take5(shrunk4(u5.xy), shrunk4(u5.zw), shrunk4(w5.xy), shrunk4(w5.zw));
    let i6 = at + min(6u, last) * 16u + lane;
    let u6 = pages[i6];
    let w6 = pages[i6 + 8u];
    take6(shrunk4(u6.xy), shrunk4(u6.zw), shrunk4(w6.xy), shrunk4(w6.zw));
    let i7 = at + min(7u, last) * 16u + lane;
    let u7 = pages[i7];
    let w7 = pages[i7 + 8u];
    take7(shrunk4(u7.xy), shrunk4(u7.zw), shrunk4(w7.xy), shrunk4(w7.zw));
}

// The lane's dimensions of eight tokens from t on, weighted with p, tokens past `last` repeating it.
fn values16(at: u32, lane: u32, t: u32, last: u32) {
    let octets = params.head_dim / 8u;
    let o = at + min(lane, octets - 1u);
    let u0 = pages[o + min(t + 0u, last) * octets];
    give0(shrunk4(u0.xy), shrunk4(u0.zw));
    let u1 = pages[o + min(t + 1u, last) * octets];
    give1(shrunk4(u1.xy), shrunk4(u1.zw));
    let u2 = pages[o + min(t + 2u, last) * octets];
    give2(shrunk4(u2.xy), shrunk4(u2.zw));
    let u3 = pages[o + min(t + 3u, last) * octets];
    give3(shrunk4(u3.xy), shrunk4(u3.zw));
    let u4 = pages[o + min(t + 4u, last) * octets];
    give4(shrunk4(u4.xy), shrunk4(u4.zw));
    let u5 = pages[o + min(t + 5u, last) * octets];
    give5(shrunk4(u5.xy), shrunk4(u5.zw));
    let u6 = pages[o + min(t + 6u, last) * octets];
    give6(shrunk4(u6.xy), shrunk4(u6.zw));
    let u7 = pages[o + min(t + 7u, last) * octets];
    give7(shrunk4(u7.xy), shrunk4(u7.zw));
}

// All chunks of this width. Without any nothing changes.
//
// llvmpipe seems to run the body of a loop once more after its condition has failed, so this one asks at its end, and has one turn
// without chunks too: no token is in sight then, but zero times what the pages hold may be no number.
fn sum_kv16(lane: u32, task: Task, most: u32) {
    var c = next_of(task.begin, task, W16);
    let any = c < task.end;
    scale_queries(GROWN);
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
        scores16(keys, lane);
        soften(c, lane, task, there);
        p = p0 * GROWN;
        values16(vals, lane, 0u, last);
        p = p1 * GROWN;
        values16(vals, lane, 8u, last);
        continuing {
            c = next_of(c + 1u, task, W16);
            break if c >= task.end;
        }
    }
    if (!any) { put_back(); }
    scale_queries(1.0 / GROWN);
}
