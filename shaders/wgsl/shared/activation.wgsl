// Activations of gated MLPs (Shazeer, arXiv 2002.05202).

fn silu(g: f32) -> f32 { return g / (1.0 + exp(-g)); }

// The tanh approximation. tanh saturates; the clamp keeps exp inside tanh finite on every driver.
fn gelu(g: f32) -> f32 {
    return 0.5 * g * (1.0 + tanh(clamp(0.7978845608 * (g + 0.044715 * g * g * g), -15.0, 15.0)));
}
