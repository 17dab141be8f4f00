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

// Four f16 of such a plane, of rows r to r + 3.
fn halves4(plane: u32, r: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(ws[plane + r / 2u]), unpack2x16float(ws[plane + r / 2u + 1u]));
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

// Each format has a struct Sub, `fetch` to load sub-block `sub` of row `r` of the region at `base`, `codes` for its
// elements 4 i to 4 i + 3 before scaling, and `scale`: the factor and the addend of elements before 16 (i = 0) and from 16
// on (i = 4). `quad` is both together. `fetch4` loads rows r to r + 3, r a multiple of 4, and takes single words of four
// rows at once where it can.
struct Four { a: Sub, b: Sub, c: Sub, d: Sub }

#ifdef W_F32
struct Sub { at: u32, rb: u32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub { return Sub(base + r, rb); }
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    return Four(fetch(base, rb, r, sub), fetch(base, rb, r + 1u, sub), fetch(base, rb, r + 2u, sub),
        fetch(base, rb, r + 3u, sub));
}
fn codes(s: Sub, i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(w[s.at + i * s.rb]); }
fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(1.0, 0.0); }
fn quad(s: Sub, i: u32) -> vec4<f32> { return codes(s, i); }
#endif

#ifdef W_F16
struct Sub { at: u32, rb: u32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub { return Sub(base + r, rb); }
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    return Four(fetch(base, rb, r, sub), fetch(base, rb, r + 1u, sub), fetch(base, rb, r + 2u, sub),
        fetch(base, rb, r + 3u, sub));
}
fn codes(s: Sub, i: u32) -> vec4<f32> {
    let v = w[s.at + (i / 2u) * s.rb];
    let two = select(v.xy, v.zw, (i & 1u) == 1u);
    return vec4<f32>(unpack2x16float(two.x), unpack2x16float(two.y));
}
fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(1.0, 0.0); }
fn quad(s: Sub, i: u32) -> vec4<f32> { return codes(s, i); }
#endif

#ifdef W_BF16
struct Sub { at: u32, rb: u32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub { return Sub(base + r, rb); }
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    return Four(fetch(base, rb, r, sub), fetch(base, rb, r + 1u, sub), fetch(base, rb, r + 2u, sub),
        fetch(base, rb, r + 3u, sub));
}
fn codes(s: Sub, i: u32) -> vec4<f32> {
    let v = w[s.at + (i / 2u) * s.rb];
    let two = select(v.xy, v.zw, (i & 1u) == 1u);
    return bitcast<vec4<f32>>(vec4<u32>(two.x << 16u, two.x & 0xffff0000u, two.y << 16u, two.y & 0xffff0000u));
}
fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(1.0, 0.0); }
fn quad(s: Sub, i: u32) -> vec4<f32> { return codes(s, i); }
#endif

// The 32-element formats with 4-bit quants: elements 0 to 15 in low nibbles, 16 to 31 in high ones.
#ifdef W_Q4_0
struct Sub { q: vec4<u32>, d: f32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub { return Sub(w[base + r], half_at((base + rb) * 4u, r)); }
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    let i = base + r;
    let d = halves4((base + rb) * 4u, r);
    return Four(Sub(w[i], d.x), Sub(w[i + 1u], d.y), Sub(w[i + 2u], d.z), Sub(w[i + 3u], d.w));
}
fn codes(s: Sub, i: u32) -> vec4<f32> { return nibbles(s.q[i & 3u] >> (i & 4u)); }
fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(s.d, -8.0 * s.d); }
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let c = scale(s, i);
    return c.x * codes(s, i) + vec4<f32>(c.y);
}
#endif

#ifdef W_Q4_1
struct Sub { q: vec4<u32>, dm: vec2<f32> }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    return Sub(w[base + r], unpack2x16float(ws[(base + rb) * 4u + r]));
}
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    let i = base + r;
    let dm = w[base + rb + r / 4u];
    return Four(Sub(w[i], unpack2x16float(dm.x)), Sub(w[i + 1u], unpack2x16float(dm.y)),
        Sub(w[i + 2u], unpack2x16float(dm.z)), Sub(w[i + 3u], unpack2x16float(dm.w)));
}
fn codes(s: Sub, i: u32) -> vec4<f32> { return nibbles(s.q[i & 3u] >> (i & 4u)); }
fn scale(s: Sub, i: u32) -> vec2<f32> { return s.dm; }
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let c = scale(s, i);
    return c.x * codes(s, i) + vec4<f32>(c.y);
}
#endif

#ifdef W_Q5_0
struct Sub { q: vec4<u32>, h: u32, d: f32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    let plane = (base + rb) * 4u;
    return Sub(w[base + r], ws[plane + r], half_at(plane + rb, r));
}
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    let i = base + r;
    let h = w[base + rb + r / 4u];
    let d = halves4((base + rb) * 4u + rb, r);
    return Four(Sub(w[i], h.x, d.x), Sub(w[i + 1u], h.y, d.y), Sub(w[i + 2u], h.z, d.z), Sub(w[i + 3u], h.w, d.w));
}
fn codes(s: Sub, i: u32) -> vec4<f32> { return nibbles(s.q[i & 3u] >> (i & 4u)) + fifth(s.h, i); }
fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(s.d, -16.0 * s.d); }
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let c = scale(s, i);
    return c.x * codes(s, i) + vec4<f32>(c.y);
}
#endif

#ifdef W_Q5_1
struct Sub { q: vec4<u32>, h: u32, dm: vec2<f32> }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    let plane = (base + rb) * 4u;
    return Sub(w[base + r], ws[plane + r], unpack2x16float(ws[plane + rb + r]));
}
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    let i = base + r;
    let h = w[base + rb + r / 4u];
    let dm = w[base + rb + rb / 4u + r / 4u];
    return Four(Sub(w[i], h.x, unpack2x16float(dm.x)), Sub(w[i + 1u], h.y, unpack2x16float(dm.y)),
        Sub(w[i + 2u], h.z, unpack2x16float(dm.z)), Sub(w[i + 3u], h.w, unpack2x16float(dm.w)));
}
fn codes(s: Sub, i: u32) -> vec4<f32> { return nibbles(s.q[i & 3u] >> (i & 4u)) + fifth(s.h, i); }
fn scale(s: Sub, i: u32) -> vec2<f32> { return s.dm; }
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let c = scale(s, i);
    return c.x * codes(s, i) + vec4<f32>(c.y);
}
#endif

#ifdef W_Q8_0
struct Sub { p: vec4<u32>, q: vec4<u32>, d: f32 }
fn fetch(base: u32, rb: u32, r: u32, sub: u32) -> Sub {
    return Sub(w[base + r], w[base + rb + r], half_at((base + 2u * rb) * 4u, r));
}
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    let i = base + r;
    let j = i + rb;
    let d = halves4((base + 2u * rb) * 4u, r);
    return Four(Sub(w[i], w[j], d.x), Sub(w[i + 1u], w[j + 1u], d.y), Sub(w[i + 2u], w[j + 2u], d.z),
        Sub(w[i + 3u], w[j + 3u], d.w));
}
fn codes(s: Sub, i: u32) -> vec4<f32> { return signed_bytes(pick(s.p, s.q, i)); }
fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(s.d, 0.0); }
fn quad(s: Sub, i: u32) -> vec4<f32> { return s.d * codes(s, i); }
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
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    return Four(fetch(base, rb, r, sub), fetch(base, rb, r + 1u, sub), fetch(base, rb, r + 2u, sub),
        fetch(base, rb, r + 3u, sub));
}
fn codes(s: Sub, i: u32) -> vec4<f32> { return nibbles(pick(s.p, s.q, i)); }
fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(s.dm.x, -s.dm.y); }
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let c = scale(s, i);
    return c.x * codes(s, i) + vec4<f32>(c.y);
}
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
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    return Four(fetch(base, rb, r, sub), fetch(base, rb, r + 1u, sub), fetch(base, rb, r + 2u, sub),
        fetch(base, rb, r + 3u, sub));
}
fn codes(s: Sub, i: u32) -> vec4<f32> {
    let h = pick(s.g, s.h, i);
    let high = (vec4<u32>(h, h >> 8u, h >> 16u, h >> 24u) & vec4<u32>(1u)) << vec4<u32>(4u);
    return nibbles(pick(s.p, s.q, i)) + vec4<f32>(vec4<i32>(high));
}
fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(s.dm.x, -s.dm.y); }
fn quad(s: Sub, i: u32) -> vec4<f32> {
    let c = scale(s, i);
    return c.x * codes(s, i) + vec4<f32>(c.y);
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
fn fetch4(base: u32, rb: u32, r: u32, sub: u32) -> Four {
    return Four(fetch(base, rb, r, sub), fetch(base, rb, r + 1u, sub), fetch(base, rb, r + 2u, sub),
        fetch(base, rb, r + 3u, sub));
}
fn codes(s: Sub, i: u32) -> vec4<f32> {
    let h = pick(s.g, s.h, i);
    let high = (vec4<u32>(h, h >> 8u, h >> 16u, h >> 24u) & vec4<u32>(3u)) << vec4<u32>(4u);
    return nibbles(pick(s.p, s.q, i)) + vec4<f32>(vec4<i32>(high)) - vec4<f32>(32.0);
}
fn scale(s: Sub, i: u32) -> vec2<f32> { return vec2<f32>(select(s.s, s.t, i >= 4u), 0.0); }
fn quad(s: Sub, i: u32) -> vec4<f32> { return scale(s, i).x * codes(s, i); }
#endif
