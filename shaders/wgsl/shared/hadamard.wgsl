// The Walsh-Hadamard transform in Sylvester's order: element i of the result sums element j with sign (-1)^|i & j|.
// It is its own inverse once it is divided by the root of its size.
fn sign_of(i: u32, j: u32) -> f32 { return 1.0 - 2.0 * f32(countOneBits(i & j) & 1u); }

// Over four elements.
fn hadamard4(e: vec4<f32>) -> vec4<f32> {
    let a = vec4<f32>(e.x + e.y, e.x - e.y, e.z + e.w, e.z - e.w);
    return vec4<f32>(a.xy + a.zw, a.xy - a.zw);
}
