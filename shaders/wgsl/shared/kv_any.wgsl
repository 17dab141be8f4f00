// Any four elements of a plane in any width, before scale and offset, for adapters that branch well.
#import shared/kv

// Dimensions 4·quad..4·quad+4 of token t's key.
fn key_quad(width: u32, at: u32, t: u32, quad: u32) -> vec4<f32> {
    switch (width) {
        case 0u: {
            let u = piece(at + (quad / 2u) * 16u + t);
            return halves4(select(u.xy, u.zw, (quad & 1u) == 1u));
        }
        case 1u: { return bytes4(piece(at + (quad / 4u) * 16u + t)[quad & 3u]); }
        case 2u: { return nibbles4(piece(at + (quad / 8u) * 16u + t)[(quad / 2u) & 3u] >> (16u * (quad & 1u))); }
        case 3u: { return crumbs4(piece(at + (quad / 16u) * 16u + t)[(quad / 4u) & 3u] >> (8u * (quad & 3u))); }
        default: { return bitcast<vec4<f32>>(piece(at + quad * 16u + t)); }
    }
}

// Likewise of token t's value.
fn value_quad(width: u32, at: u32, t: u32, quad: u32, octets: u32) -> vec4<f32> {
    let o = quad / 2u;
    let h = quad & 1u;
    switch (width) {
        case 0u: {
            let u = piece(at + t * octets + o);
            return halves4(select(u.xy, u.zw, h == 1u));
        }
        case 1u: { return bytes4(piece(at + (t / 2u) * octets + o)[(t & 1u) * 2u + h]); }
        case 2u: { return nibbles4(piece(at + (t / 4u) * octets + o)[t & 3u] >> (16u * h)); }
        case 3u: { return crumbs4(piece(at + (t / 8u) * octets + o)[(t & 7u) / 2u] >> (16u * (t & 1u) + 8u * h)); }
        default: { return bitcast<vec4<f32>>(piece(at + (t * octets + o) * 2u + h)); }
    }
}

// Scale and offset of a token.
fn meta_of(width: u32, at: u32, t: u32, head_dim: u32) -> vec2<f32> {
    if (width == W16 || width == W32) { return vec2<f32>(1.0, 0.0); }
    return unpack2x16float(piece(at + data_pieces(width, head_dim) + t / 4u)[t & 3u]);
}
