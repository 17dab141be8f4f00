// Recovery adapters as they lie on the device: A (inputs / 4, 2) quads, B (outputs / 4, 2) quads, c (outputs / 4) words.
// Codes are signed bytes, four to a word; a load of four words holds four ranks of four inputs, or of four outputs.

fn bytes(word: u32) -> vec4<f32> {
    let i = bitcast<i32>(word);
    return vec4<f32>(vec4<i32>(i << 24u, i << 16u, i << 8u, i) >> vec4<u32>(24u));
}

// Four ranks of A times four features.
fn four(w: vec4<u32>, v: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(dot(bytes(w.x), v), dot(bytes(w.y), v), dot(bytes(w.z), v), dot(bytes(w.w), v));
}

// Four outputs: four ranks of B times what A gave.
fn mixed(w: vec4<u32>, t: vec4<f32>) -> vec4<f32> {
    return bytes(w.x) * t.x + bytes(w.y) * t.y + bytes(w.z) * t.z + bytes(w.w) * t.w;
}
