// Quantised weights in place: 32 elements of one row of one panel, decoded to f32.
//
// Needs `w: array<vec4<u32>>` and `ws: array<u32>`, two views of the same buffer. A region is one panel (one quant
// block wide) of one row block of R rows, R a multiple of 32. It holds planes, one after the other: quants as vec4s
// [j][row], then single words [row], then f16 scales two rows a word [row / 2]. See src/layout.rs.

struct W32 { a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>, e: vec4<f32>, f: vec4<f32>, g: vec4<f32>, h: vec4<f32> }

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

fn nibbles_lo(v: u32) -> vec4<f32> { return vec4<f32>(vec4<u32>(v, v >> 8u, v >> 16u, v >> 24u) & vec4<u32>(15u)); }
fn nibbles_hi(v: u32) -> vec4<f32> { return nibbles_lo(v >> 4u); }

// Four bits of `v` from `shift` on, as the fifth bit of four elements.
fn fifth(v: u32, shift: u32) -> vec4<f32> {
    let s = vec4<u32>(shift, shift + 1u, shift + 2u, shift + 3u);
    return vec4<f32>(((vec4<u32>(v) >> s) & vec4<u32>(1u)) << vec4<u32>(4u));
}

fn signed_bytes(v: u32) -> vec4<f32> {
    let i = bitcast<i32>(v);
    return vec4<f32>(vec4<i32>(i << 24u, i << 16u, i << 8u, i) >> vec4<u32>(24u));
}

#ifdef W_F32
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let i = base + r;
    return W32(bitcast<vec4<f32>>(w[i]), bitcast<vec4<f32>>(w[i + rb]), bitcast<vec4<f32>>(w[i + 2u * rb]),
        bitcast<vec4<f32>>(w[i + 3u * rb]), bitcast<vec4<f32>>(w[i + 4u * rb]), bitcast<vec4<f32>>(w[i + 5u * rb]),
        bitcast<vec4<f32>>(w[i + 6u * rb]), bitcast<vec4<f32>>(w[i + 7u * rb]));
}
#endif

#ifdef W_F16
fn four(a: u32, b: u32) -> vec4<f32> { return vec4<f32>(unpack2x16float(a), unpack2x16float(b)); }
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let i = base + r;
    let p = w[i];
    let q = w[i + rb];
    let s = w[i + 2u * rb];
    let t = w[i + 3u * rb];
    return W32(four(p.x, p.y), four(p.z, p.w), four(q.x, q.y), four(q.z, q.w),
        four(s.x, s.y), four(s.z, s.w), four(t.x, t.y), four(t.z, t.w));
}
#endif

#ifdef W_BF16
fn four(a: u32, b: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let i = base + r;
    let p = w[i];
    let q = w[i + rb];
    let s = w[i + 2u * rb];
    let t = w[i + 3u * rb];
    return W32(four(p.x, p.y), four(p.z, p.w), four(q.x, q.y), four(q.z, q.w),
        four(s.x, s.y), four(s.z, s.w), four(t.x, t.y), four(t.z, t.w));
}
#endif

#ifdef W_Q4_0
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let q = w[base + r];
    let d = half_at((base + rb) * 4u, r);
    let m = vec4<f32>(-8.0);
    return W32(d * (nibbles_lo(q.x) + m), d * (nibbles_lo(q.y) + m), d * (nibbles_lo(q.z) + m), d * (nibbles_lo(q.w) + m),
        d * (nibbles_hi(q.x) + m), d * (nibbles_hi(q.y) + m), d * (nibbles_hi(q.z) + m), d * (nibbles_hi(q.w) + m));
}
#endif

#ifdef W_Q4_1
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let q = w[base + r];
    let dm = unpack2x16float(ws[(base + rb) * 4u + r]);
    let d = dm.x;
    let m = vec4<f32>(dm.y);
    return W32(d * nibbles_lo(q.x) + m, d * nibbles_lo(q.y) + m, d * nibbles_lo(q.z) + m, d * nibbles_lo(q.w) + m,
        d * nibbles_hi(q.x) + m, d * nibbles_hi(q.y) + m, d * nibbles_hi(q.z) + m, d * nibbles_hi(q.w) + m);
}
#endif

#ifdef W_Q5_0
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let q = w[base + r];
    let plane = (base + rb) * 4u;
    let h = ws[plane + r];
    let d = half_at(plane + rb, r);
    let m = vec4<f32>(-16.0);
    return W32(d * (nibbles_lo(q.x) + fifth(h, 0u) + m), d * (nibbles_lo(q.y) + fifth(h, 4u) + m),
        d * (nibbles_lo(q.z) + fifth(h, 8u) + m), d * (nibbles_lo(q.w) + fifth(h, 12u) + m),
        d * (nibbles_hi(q.x) + fifth(h, 16u) + m), d * (nibbles_hi(q.y) + fifth(h, 20u) + m),
        d * (nibbles_hi(q.z) + fifth(h, 24u) + m), d * (nibbles_hi(q.w) + fifth(h, 28u) + m));
}
#endif

#ifdef W_Q5_1
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let q = w[base + r];
    let plane = (base + rb) * 4u;
    let h = ws[plane + r];
    let dm = unpack2x16float(ws[plane + rb + r]);
    let d = dm.x;
    let m = vec4<f32>(dm.y);
    return W32(d * (nibbles_lo(q.x) + fifth(h, 0u)) + m, d * (nibbles_lo(q.y) + fifth(h, 4u)) + m,
        d * (nibbles_lo(q.z) + fifth(h, 8u)) + m, d * (nibbles_lo(q.w) + fifth(h, 12u)) + m,
        d * (nibbles_hi(q.x) + fifth(h, 16u)) + m, d * (nibbles_hi(q.y) + fifth(h, 20u)) + m,
        d * (nibbles_hi(q.z) + fifth(h, 24u)) + m, d * (nibbles_hi(q.w) + fifth(h, 28u)) + m);
}
#endif

#ifdef W_Q8_0
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let p = w[base + r];
    let q = w[base + rb + r];
    let d = half_at((base + 2u * rb) * 4u, r);
    return W32(d * signed_bytes(p.x), d * signed_bytes(p.y), d * signed_bytes(p.z), d * signed_bytes(p.w),
        d * signed_bytes(q.x), d * signed_bytes(q.y), d * signed_bytes(q.z), d * signed_bytes(q.w));
}
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
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let i = base + (sub / 2u) * 2u * rb + r;
    let shift = vec4<u32>(4u * (sub & 1u));
    let p = w[i] >> shift;
    let q = w[i + rb] >> shift;
    let dm = scale_min(w[base + 8u * rb + r], sub);
    let d = dm.x;
    let m = vec4<f32>(-dm.y);
    return W32(d * nibbles_lo(p.x) + m, d * nibbles_lo(p.y) + m, d * nibbles_lo(p.z) + m, d * nibbles_lo(p.w) + m,
        d * nibbles_lo(q.x) + m, d * nibbles_lo(q.y) + m, d * nibbles_lo(q.z) + m, d * nibbles_lo(q.w) + m);
}
#endif

#ifdef W_Q5_K
fn bit16(v: u32) -> vec4<f32> {
    return vec4<f32>((vec4<u32>(v, v >> 8u, v >> 16u, v >> 24u) & vec4<u32>(1u)) << vec4<u32>(4u));
}
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let i = base + (sub / 2u) * 2u * rb + r;
    let shift = vec4<u32>(4u * (sub & 1u));
    let p = w[i] >> shift;
    let q = w[i + rb] >> shift;
    let j = base + 8u * rb + r;
    let g = w[j] >> vec4<u32>(sub);
    let h = w[j + rb] >> vec4<u32>(sub);
    let dm = scale_min(w[j + 2u * rb], sub);
    let d = dm.x;
    let m = vec4<f32>(-dm.y);
    return W32(d * (nibbles_lo(p.x) + bit16(g.x)) + m, d * (nibbles_lo(p.y) + bit16(g.y)) + m,
        d * (nibbles_lo(p.z) + bit16(g.z)) + m, d * (nibbles_lo(p.w) + bit16(g.w)) + m,
        d * (nibbles_lo(q.x) + bit16(h.x)) + m, d * (nibbles_lo(q.y) + bit16(h.y)) + m,
        d * (nibbles_lo(q.z) + bit16(h.z)) + m, d * (nibbles_lo(q.w) + bit16(h.w)) + m);
}
#endif

#ifdef W_Q6_K
// Six bits: four of `lo`, two of `hi`, less 32.
fn six(lo: u32, hi: u32) -> vec4<f32> {
    let l = vec4<u32>(lo, lo >> 8u, lo >> 16u, lo >> 24u) & vec4<u32>(15u);
    let h = vec4<u32>(hi, hi >> 8u, hi >> 16u, hi >> 24u) & vec4<u32>(3u);
    return vec4<f32>(l | (h << vec4<u32>(4u))) - vec4<f32>(32.0);
}
fn decode(base: u32, rb: u32, r: u32, sub: u32) -> W32 {
    let part = sub / 4u;      // which half of the block
    let quarter = sub & 3u;   // which 32 of its 128 elements
    let i = base + (4u * part + 2u * (quarter & 1u)) * rb + r;
    let low = vec4<u32>(4u * (quarter / 2u));
    let p = w[i] >> low;
    let q = w[i + rb] >> low;
    let j = base + (8u + 2u * part) * rb + r;
    let top = vec4<u32>(2u * quarter);
    let g = w[j] >> top;
    let h = w[j + rb] >> top;
    // 16 signed scales, two for each 32 elements.
    let scales = w[base + 12u * rb + r];
    let words = select(scales.xy, scales.zw, part == 1u);
    let word = select(words.x, words.y, quarter >= 2u);
    let pair = bitcast<i32>(word << (16u * (1u - (quarter & 1u))));
    let d = half_at((base + 13u * rb) * 4u, r);
    let s = d * f32((pair << 8u) >> 24u);
    let t = d * f32(pair >> 24u);
    return W32(s * six(p.x, g.x), s * six(p.y, g.y), s * six(p.z, g.z), s * six(p.w, g.w),
        t * six(q.x, h.x), t * six(q.y, h.y), t * six(q.z, h.z), t * six(q.w, h.w));
}
#endif
