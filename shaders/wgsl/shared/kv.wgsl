// Where elements of keys and values lie in a layer's arena, for all widths. A chunk's extent is [K|V][group] of planes;
// a plane holds 16 tokens of one head in pieces of 16 bytes, in the order of `KvGeometry` in the crate kv:
//   keys:   piece i·16 + t has the 128 / bits dimensions of token t from i·128/bits on
//   values: piece (t / n)·octets + o has dimensions 8o..8o+8 of n = 16 / bits tokens (f32: two pieces a token)
//   below 16 bits: four more pieces of meta, a word a token: scale in the low half, offset in the high one, f16
// Quantised keys are stored without their chunk's centre: the mean over the chunk's positions of what a layer's keys have in
// common, embedded and transformed. It depends on the chunk's number alone, so there is one table a layer, at the end of its
// arena: (chunks, groups, head_dim) f16.
// Whoever imports this defines `piece(i) -> vec4<u32>`.
const W16 = 0u;
const W8 = 1u;
const W4 = 2u;
const W2 = 3u;
const W32 = 4u;

fn width_of(entry: u32) -> u32 { return entry >> 28u; }

fn bits_of(width: u32) -> u32 { return select(16u >> width, 32u, width == W32); }

// Pieces of a plane that hold elements.
fn data_pieces(width: u32, head_dim: u32) -> u32 { return 16u * ((head_dim * bits_of(width) + 127u) / 128u); }

// First piece of a plane. A unit of a place is 16 words of every plane.
fn plane_at(entry: u32, value: u32, group: u32, groups: u32, head_dim: u32) -> u32 {
    let width = width_of(entry);
    let pieces = data_pieces(width, head_dim) + select(4u, 0u, width == W16 || width == W32);
    return (entry & 0x0fffffffu) * 8u * groups + (value * groups + group) * pieces;
}

// The piece with dimensions 8·octet..8·octet+8 of the centre of a group's keys.
fn centre_at(centres: u32, chunk: u32, group: u32, groups: u32, octets: u32, octet: u32) -> u32 {
    return centres + (chunk * groups + group) * octets + octet;
}

fn halves4(u: vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(u.x), unpack2x16float(u.y)); }

// Through signed integers: AVX2 converts no unsigned ones.
fn bytes4(w: u32) -> vec4<f32> {
    return vec4<f32>(vec4<i32>((vec4<u32>(w) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u)));
}

fn nibbles4(w: u32) -> vec4<f32> {
    return vec4<f32>(vec4<i32>((vec4<u32>(w) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)));
}

fn crumbs4(w: u32) -> vec4<f32> {
    return vec4<f32>(vec4<i32>((vec4<u32>(w) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u)));
}
