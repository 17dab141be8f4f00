// Blocks of activations brought to a common size before they are rounded.

// The greatest of four sizes.
fn peak(v: vec4<f32>) -> f32 {
    let a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

// 1 / size, and 0 for what is too small to have one.
fn inverse(size: f32) -> f32 { return select(0.0, 1.0 / size, size > 1e-35); }
