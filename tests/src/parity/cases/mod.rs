//! Cases for every kernel: shapes chosen to hit edges, contents random.

mod adapter;
mod attention;
mod embed;
mod encoder;
mod logits;
mod matrix;
mod merge;
mod pointwise;
mod quant;
mod roofline;
mod rope;
mod sampling;
mod token;

use concertina_formats::testing::Rng;
use concertina_shaders::Variant;

use super::Case;

/// The cases of a variant, the same for the same seed.
///
/// # Panics
/// If the kernel is not known here: a kernel without cases is not tested.
pub fn cases(variant: &'static Variant, seed: u64) -> Vec<Case> {
    let rng = &mut Rng::named(seed, variant.kernel);
    match (variant.kernel, variant.params) {
        ("embed", _) => embed::cases(variant, rng),
        ("gather_rows", _) => pointwise::gather_rows(variant, rng),
        ("rms_norm", _) => pointwise::rms_norm(variant, rng),
        ("glu", _) => pointwise::glu(variant, rng),
        ("adapter", _) => adapter::cases(variant, rng),
        ("matvec_adapted", _) => adapter::inside(variant, rng),
        ("layer_norm", _) => encoder::layer_norm(variant, rng),
        ("gelu_erf", _) => encoder::gelu_erf(variant, rng),
        ("attn_dense", _) => encoder::attn_dense(variant, rng),
        ("rope_kv", _) => rope::cases(variant, rng),
        ("attn_split", _) => attention::cases(variant, rng),
        ("attn_token", _) => token::cases(variant, rng),
        ("kv_quant", _) => quant::cases(variant, rng),
        ("attn_merge", _) => merge::attn_merge(variant, rng),
        ("attn_share", _) => merge::attn_share(variant, rng),
        ("row_nll", _) => logits::cases(variant, rng),
        ("sample", _) => sampling::cases(variant, rng),
        (_, "RoofParams") => roofline::cases(variant, rng),
        // All kernels over MatmulParams have one contract.
        (_, "MatmulParams") => matrix::cases(variant, rng),
        (kernel, _) => panic!("kernel {kernel} has no parity cases: add some"),
    }
}

/// `n` random f32 in about ±1.7, none of them near an extreme.
fn floats(rng: &mut Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.float()).collect()
}

/// `0..n` in random order.
fn shuffled(rng: &mut Rng, n: usize) -> Vec<u32> {
    let mut items: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        items.swap(i, rng.below(i + 1));
    }
    items
}
