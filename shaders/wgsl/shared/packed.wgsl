// The quants of shared/weights as signed bytes, four a word: what dot4I8Packed takes.

// Four bits of `v` from bit 4 i on, each as bit 4 of a byte.
fn fifth_bits(v: u32, i: u32) -> u32 {
    let b = (v >> (4u * i)) & 15u;
    return ((b & 1u) << 4u) | ((b & 2u) << 11u) | ((b & 4u) << 18u) | ((b & 8u) << 25u);
}

// Elements 4 i to 4 i + 3 of a sub-block before scaling; `scale` goes with them.
#ifdef W_Q4_0
fn packed(s: Sub, i: u32) -> u32 { return (s.q[i & 3u] >> (i & 4u)) & 0x0f0f0f0fu; }
#endif
#ifdef W_Q4_1
fn packed(s: Sub, i: u32) -> u32 { return (s.q[i & 3u] >> (i & 4u)) & 0x0f0f0f0fu; }
#endif
#ifdef W_Q5_0
fn packed(s: Sub, i: u32) -> u32 { return ((s.q[i & 3u] >> (i & 4u)) & 0x0f0f0f0fu) | fifth_bits(s.h, i); }
#endif
#ifdef W_Q5_1
fn packed(s: Sub, i: u32) -> u32 { return ((s.q[i & 3u] >> (i & 4u)) & 0x0f0f0f0fu) | fifth_bits(s.h, i); }
#endif
#ifdef W_Q8_0
fn packed(s: Sub, i: u32) -> u32 { return pick(s.p, s.q, i); }
#endif
#ifdef W_Q4_K
fn packed(s: Sub, i: u32) -> u32 { return pick(s.p, s.q, i) & 0x0f0f0f0fu; }
#endif
#ifdef W_Q5_K
fn packed(s: Sub, i: u32) -> u32 {
    return (pick(s.p, s.q, i) & 0x0f0f0f0fu) | ((pick(s.g, s.h, i) & 0x01010101u) << 4u);
}
#endif
#ifdef W_Q6_K
fn packed(s: Sub, i: u32) -> u32 {
    let v = (pick(s.p, s.q, i) & 0x0f0f0f0fu) | ((pick(s.g, s.h, i) & 0x03030303u) << 4u);
    // 32 less in every byte; the top bit keeps a byte from borrowing from the next.
    return ((v | 0x80808080u) - 0x20202020u) ^ 0x80808080u;
}
#endif

// Elements 0 to 15 (half 0) or 16 to 31.
fn packed16(s: Sub, half: u32) -> vec4<u32> {
    let i = 4u * half;
    return vec4<u32>(packed(s, i), packed(s, i + 1u), packed(s, i + 2u), packed(s, i + 3u));
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return (dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y)) + (dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w));
}

// Sixteen activations, already divided by the greatest of their block, as signed bytes of 127ths.
fn rounded16(a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<u32> {
    return vec4<u32>(pack4x8snorm(a), pack4x8snorm(b), pack4x8snorm(c), pack4x8snorm(d));
}

// The sum of sixteen signed bytes.
fn sum16(v: vec4<u32>) -> i32 { return dot16(v, vec4<u32>(0x01010101u)); }
