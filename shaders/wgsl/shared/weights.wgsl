// Quantised weights in place: a sub-block of 32 elements of one row of one panel, fetched once and decoded to f32 four
// elements at a time, so that few registers are live.
//
// Needs `w: array<vec4<u32>>` and `ws: array<u32>`, two views of the same buffer. A region is one panel (one quant
// block wide) of one row block of R rows, R a multiple of 32. It holds planes, one after the other: quants as vec4s
// [j][row], then single words [row], then f16 scales two rows a word [row / 2]. See src/layout.rs.

// Start of a region, in vec4s. UNIT: vec4s a region takes for 8 rows.
#ifdef W_F32
const UNIT = 64u;
const SUBS = 1u;
#endif
#ifdef W_F16
const UNIT = 32u;
const SUBS = 1u;
#endif
#ifdef W_BF16
const UNIT = 32u;
const SUBS = 1u;
#endif
#ifdef W_Q4_0
const UNIT = 9u;
const SUBS = 1u;
#endif
#ifdef W_Q4_1
const UNIT = 10u;
const SUBS = 1u;
#endif
#ifdef W_Q5_0
const UNIT = 11u;
const SUBS = 1u;
#endif
#ifdef W_Q5_1
const UNIT = 12u;
const SUBS = 1u;
#endif
#ifdef W_Q8_0
const UNIT = 17u;
const SUBS = 1u;
#endif
#ifdef W_Q4_K
const UNIT = 72u;
const SUBS = 8u;
#endif
#ifdef W_Q5_K
const UNIT = 88u;
const SUBS = 8u;
#endif
#ifdef W_Q6_K
const UNIT = 105u;
const SUBS = 8u;
#endif

fn region(index: u32, row_block: u32) -> u32 { return index * (row_block / 8u) * UNIT; }

// An f16 of a plane that packs two rows a word; `plane` in words.
fn half_at(plane: u32, r: u32) -> f32 {
    let pair = unpack2x16float(ws[plane + r / 2u]);
    return select(pair.x, pair.y, (r & 1u) == 1u);
}

// Word `i` of eight.
fn pick(a: vec4<u32>, b: vec4<u32>, i: u32) -> u32 { return select(a, b, i >= 4u)[i & 3u]; }

// Low nibbles of the four bytes of `v`.
fn nibbles(v: u32) -> vec4<f32> {
    return vec4<f32>(vec4<i32>(vec4<u32>(v, v >> 8u, v >> 16u, v >> 24u) & vec4<u32>(15u)));
}

// Four bits of `v` from bit 4 i on, as the fifth bit of four elements.
fn fifth(v: u32, i: u32) -> vec4<f32> {
    let s = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
    return vec4<f32>(vec4<i32>(((vec4<u32>(v) >> s) & vec4<u32>(1u)) << vec4<u32>(4u)));
}

fn signed_bytes(v: u32) -> vec4<f32> {
    let i = bitcast<i32>(v);
    return vec4<f32>(vec4<i32>(i << 24u, i << 16u, i << 8u, i) >> vec4<u32>(24u));
}

// Each format has a struct Sub, `fetch` to load sub-block `sub` of row `r` of the region at `base`, and `quad` for its
// elements 4 i to 4 i + 3.

#ifdef W_F32
struct Sub { at: u32, rb: u32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub { return Sub(base + r, rb); }
fn quad(s: Sub, i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(w[s.at + i * s.rb]); }
#endif

#ifdef W_F16
struct Sub { at: u32, rb: u32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub { return Sub(base + r, rb); }
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let v = w[s.at + (i / 2u) * s.rb];
    let two = select(v.xy, v.zw, (i & 1u) == 1u);
    return vec4<f32>(unpack2x16float(two.x), unpack2x16float(two.y));
}
#endif

#ifdef W_BF16
struct Sub { at: u32, rb: u32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub { return Sub(base + r, rb); }
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let v = w[s.at + (i / 2u) * s.rb];
    let two = select(v.xy, v.zw, (i & 1u) == 1u);
    return bitcast<vec4<f32>>(vec4<u32>(two.x << 16u, two.x & 0xffff0000u, two.y << 16u, two.y & 0xffff0000u));
}
#endif

// The 32-element formats with 4-bit quants: elements 0 to 15 in low nibbles, 16 to 31 in high ones.
#ifdef W_Q4_0
struct Sub { q: vec4<u32>, d: f32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub { return Sub(w[base + r], half_at((base + rb) * 4u, r)); }
fn quad(s: Sub, i: u32) -> vec4<f32> { return s.d * (nibbles(s.q[i & 3u] >> (i & 4u)) - vec4<f32>(8.0)); }
#endif

#ifdef W_Q4_1
struct Sub { q: vec4<u32>, dm: vec2<f32> }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    return Sub(w[base + r], unpack2x16float(ws[(base + rb) * 4u + r]));
}
fn quad(s: Sub, i: u32) -> vec4<f32> { return s.dm.x * nibbles(s.q[i & 3u] >> (i & 4u)) + vec4<f32>(s.dm.y); }
#endif

#ifdef W_Q5_0
struct Sub { q: vec4<u32>, h: u32, d: f32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    let plane = (base + rb) * 4u;
    return Sub(w[base + r], ws[plane + r], half_at(plane + rb, r));
}
fn quad(s: Sub, i: u32) -> vec4<f32> {
    return s.d * (nibbles(s.q[i & 3u] >> (i & 4u)) + fifth(s.h, i) - vec4<f32>(16.0));
}
#endif

#ifdef W_Q5_1
struct Sub { q: vec4<u32>, h: u32, dm: vec2<f32> }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    let plane = (base + rb) * 4u;
    return Sub(w[base + r], ws[plane + r], unpack2x16float(ws[plane + rb + r]));
}
fn quad(s: Sub, i: u32) -> vec4<f32> {
    return s.dm.x * (nibbles(s.q[i & 3u] >> (i & 4u)) + fifth(s.h, i)) + vec4<f32>(s.dm.y);
}
#endif

#ifdef W_Q8_0
struct Sub { p: vec4<u32>, q: vec4<u32>, d: f32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    return Sub(w[base + r], w[base + rb + r], half_at((base + 2u * rb) * 4u, r));
}
fn quad(s: Sub, i: u32) -> vec4<f32> { return s.d * signed_bytes(pick(s.p, s.q, i)); }
#endif

// The 6-bit scale and minimum of sub-block `sub` of Q4_K and Q5_K. `s`: (d and dmin, 12 bytes of packed scales).
fn scale_min(s: vec4<u32>, sub: u32) -> vec2<f32> {
    let j = sub & 3u;
    let lo = s.y >> (8u * j);
    let mi = s.z >> (8u * j);
    let hi = s.w >> (8u * j);
    let sc = select(lo & 63u, (hi & 15u) | ((lo >> 2u) & 48u), sub >= 4u);
    let mn = select(mi & 63u, ((hi >> 4u) & 15u) | ((mi >> 2u) & 48u), sub >= 4u);
    return unpack2x16float(s.x) * vec2<f32>(vec2<u32>(sc, mn));
}

#ifdef W_Q4_K
struct Sub { p: vec4<u32>, q: vec4<u32>, dm: vec2<f32> }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    let i = base + (sub / 2u) * 2u * rb + r;
    let shift = vec4<u32>(4u * (sub & 1u));
    return Sub(w[i] >> shift, w[i + rb] >> shift, scale_min(w[base + 8u * rb + r], sub));
}
fn quad(s: Sub, i: u32) -> vec4<f32> { return s.dm.x * nibbles(pick(s.p, s.q, i)) - vec4<f32>(s.dm.y); }
#endif

#ifdef W_Q5_K
struct Sub { p: vec4<u32>, q: vec4<u32>, g: vec4<u32>, h: vec4<u32>, dm: vec2<f32> }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    let i = base + (sub / 2u) * 2u * rb + r;
    let shift = vec4<u32>(4u * (sub & 1u));
    let j = base + 8u * rb + r;
    let bit = vec4<u32>(sub);
    return Sub(w[i] >> shift, w[i + rb] >> shift, w[j] >> bit, w[j + rb] >> bit, scale_min(w[j + 2u * rb], sub));
}
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let h = pick(s.g, s.h, i);
    let high = (vec4<u32>(h, h >> 8u, h >> 16u, h >> 24u) & vec4<u32>(1u)) << vec4<u32>(4u);
    return s.dm.x * (nibbles(pick(s.p, s.q, i)) + vec4<f32>(vec4<i32>(high))) - vec4<f32>(s.dm.y);
}
#endif

#ifdef W_Q6_K
struct Sub { p: vec4<u32>, q: vec4<u32>, g: vec4<u32>, h: vec4<u32>, s: f32, t: f32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    let part = sub / 4u;      // which half of the block
    let quarter = sub & 3u;   // which 32 of its 128 elements
    let i = base + (4u * part + 2u * (quarter & 1u)) * rb + r;
    let low = vec4<u32>(4u * (quarter / 2u));
    let j = base + (8u + 2u * part) * rb + r;
    let top = vec4<u32>(2u * quarter);
    // 16 signed scales, two for each 32 elements.
    let scales = w[base + 12u * rb + r];
    let words = select(scales.xy, scales.zw, part == 1u);
    let word = select(words.x, words.y, quarter >= 2u);
    let pair = bitcast<i32>(word << (16u * (1u - (quarter & 1u))));
    let d = half_at((base + 13u * rb) * 4u, r);
    return Sub(w[i] >> low, w[i + rb] >> low, w[j] >> top, w[j + rb] >> top,
        d * f32((pair << 8u) >> 24u), d * f32(pair >> 24u));
}
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let h = pick(s.g, s.h, i);
    let high = (vec4<u32>(h, h >> 8u, h >> 16u, h >> 24u) & vec4<u32>(3u)) << vec4<u32>(4u);
    return select(s.s, s.t, i >= 4u) * (nibbles(pick(s.p, s.q, i)) + vec4<f32>(vec4<i32>(high)) - vec4<f32>(32.0));
}
#endif
