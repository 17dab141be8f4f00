#import shared/lanes/sums

// Scores and weights where elements are whole numbers with a scale and an offset.
fn soften_quantised(width: u32, c: u32, lane: u32, task: Task, there: bool, keys: u32, vals: u32) {
    let data = data_pieces(width, params.head_dim);
    let k0 = unpack2x16float(pages[keys + data + lane / 4u][lane & 3u]);
    let k1 = unpack2x16float(pages[keys + data + 2u + lane / 4u][lane & 3u]);
    s0 = s0 * k0.x + q_sum * k0.y;
    s1 = s1 * k1.x + q_sum * k1.y;
    if (CENTRES > 0u) {
        let octets = params.head_dim / 8u;
        let u = pages[centre_at(CENTRES, c, task.group, params.groups, octets, min(lane, octets - 1u))];
        let lo = halves4(u.xy);
        let hi = halves4(u.zw);
        // Lanes past the head hold no features.
        let mid = across_sum(vec4<f32>(dot(ql[0], lo), part(1u, ql[1], lo), part(2u, ql[2], lo), part(3u, ql[3], lo))
            + vec4<f32>(dot(qh[0], hi), part(1u, qh[1], hi), part(2u, qh[2], hi), part(3u, qh[3], hi)));
        s0 += mid;
        s1 += mid;
    }
    soften(c, lane, task, there);
    let v0 = unpack2x16float(pages[vals + data + lane / 4u][lane & 3u]);
    let v1 = unpack2x16float(pages[vals + data + 2u + lane / 4u][lane & 3u]);
    offsets = offsets * shrink + p0 * v0.y + p1 * v1.y;
    p0 *= v0.x;
    p1 *= v1.x;
}

// Offsets join the sums, before sums of pages without offsets follow.
fn add_four(by: vec4<f32>) {
    al[0u] += vec4<f32>(by.x);
    ah[0u] += vec4<f32>(by.x);
    al[1u] += vec4<f32>(by.y);
    ah[1u] += vec4<f32>(by.y);
    al[2u] += vec4<f32>(by.z);
    ah[2u] += vec4<f32>(by.z);
    al[3u] += vec4<f32>(by.w);
    ah[3u] += vec4<f32>(by.w);
}
