//! What a dispatch has to do: bytes that must be moved at least once, and floating-point operations. From its params, by
//! their names, so that a kernel which changes its params is still understood or says nothing.

use concertina_shaders::{Role, Step, Variant};

use crate::Timing;

/// What a batch looks like to attention.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// What all kernels see.
    pub step: Step,
    /// Position of each row; all rows are of one context.
    pub positions: Vec<u32>,
}

/// A dispatch of a pass, measured.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The variant.
    pub variant: &'static Variant,
    /// Its sizes, as reports name them: `1536x576`.
    pub shape: String,
    /// Output and input features, of matrix kernels.
    pub matrix: Option<(usize, usize)>,
    /// Whether sub-models make it smaller: all of a layer but the norms of the whole residual.
    pub cut: bool,
    /// Workgroups along x and y.
    pub groups: [u32; 2],
    /// Nanoseconds from the end of what ran before it to its own end.
    pub ns: f64,
    /// Bytes of weights, activations, keys and values that must be read or written; `None` where it is not known.
    pub bytes: Option<u64>,
    /// Floating-point operations, a multiply-add being two; `None` where it is not known.
    pub flops: Option<u64>,
}

impl Dispatch {
    pub(crate) fn of(timing: Timing, load: &Load) -> Self {
        let Timing { kernel, params, groups, ns } = timing;
        let fields = Fields { variant: kernel, params: &params };
        let cost = cost(&fields, load);
        let known = |pick: fn(&Cost) -> u64| cost.as_ref().map(pick);
        Self {
            variant: kernel,
            shape: cost.as_ref().map(|c| c.shape.clone()).unwrap_or_default(),
            matrix: cost.as_ref().and_then(|c| c.matrix),
            cut: is_cut(&fields),
            groups,
            ns,
            bytes: known(|c| c.bytes),
            flops: known(|c| c.flops),
        }
    }
}

#[derive(Debug, PartialEq)]
struct Cost {
    shape: String,
    matrix: Option<(usize, usize)>,
    bytes: u64,
    flops: u64,
}

struct Fields<'a> {
    variant: &'static Variant,
    params: &'a [u8],
}

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<u64> {
        let member = self.variant.members.iter().find(|m| m.name == name)?;
        let at = member.offset as usize;
        let word = self.params.get(at..at + 4)?;
        Some(u64::from(u32::from_le_bytes(word.try_into().ok()?)))
    }
}

/// Embedding, head, sampling, and norms that are not of heads are the same at every level.
fn is_cut(f: &Fields<'_>) -> bool {
    let is = |name: &str| f.get(name) == Some(1);
    match f.variant.kernel {
        "embed" | "gather_rows" | "sample" | "row_nll" => false,
        "rms_norm" => is("in_place"),
        _ => !is("out_rows"),
    }
}

const WORD: u64 = 4;

fn cost(f: &Fields<'_>, load: &Load) -> Option<Cost> {
    let variant = f.variant;
    let (rows, outs) = (u64::from(load.step.rows), u64::from(load.step.out_rows));
    let plain = |shape: String, bytes: u64, flops: u64| Some(Cost { shape, matrix: None, bytes, flops });
    let batch = || if f.get("out_rows").unwrap_or(0) == 1 { outs } else { rows };
    if variant.role == Role::Matrix || variant.kernel == "matvec_adapted" {
        let format = variant.format?;
        let (n, panels, rows) = (f.get("n")?, f.get("panels")?, batch());
        let k = panels * format.panel_cols() as u64;
        let passes = 1 + f.get("accumulate").unwrap_or(0);
        let bytes = n * panels * format.block_bytes() as u64 + WORD * rows * (k + passes * n);
        let matrix = Some((n as usize, k as usize));
        // Rank 8, a byte a code.
        let beside = u64::from(variant.role != Role::Matrix);
        let bytes = bytes + beside * (8 * (n + k) + n);
        return Some(Cost {
            shape: format!("{n}x{k}"),
            matrix,
            bytes,
            flops: 2 * n * k * rows + beside * 16 * rows * (n + k),
        });
    }
    match variant.kernel {
        "embed" => {
            let (pieces, format) = (f.get("pieces")?, variant.format?);
            let dim = 32 * pieces;
            let row = dim * format.block_bytes() as u64 / format.panel_cols() as u64;
            plain(format!("{dim}"), rows * (row + WORD * dim), 2 * rows * dim)
        }
        "gather_rows" => {
            let dim = f.get("dim")?;
            plain(format!("{dim}"), 2 * WORD * outs * dim, 0)
        }
        "rms_norm" => {
            let (dim, heads) = (f.get("dim")?, f.get("heads")?);
            let (vectors, passes) = (heads * batch(), 2 + f.get("accumulate")?);
            plain(format!("{heads}x{dim}"), WORD * dim * (1 + passes * vectors), 4 * dim * vectors)
        }
        "glu" => {
            let n = f.get("n")?;
            // The exponential counts as one operation.
            plain(format!("{n}"), 3 * WORD * rows * n, 5 * rows * n)
        }
        "adapter" => {
            let (inputs, outputs) = (f.get("inputs")?, f.get("outputs")?);
            let bytes = 8 * (inputs + outputs) + outputs + WORD * rows * (inputs + 2 * outputs);
            plain(format!("{outputs}x8x{inputs}"), bytes, 16 * rows * (inputs + outputs))
        }
        "rope_kv" => {
            let (heads, kept, d) = (f.get("heads")?, f.get("kept")?, f.get("head_dim")?);
            let written = heads * d * WORD + 2 * kept * d * page_bits(variant) / 8;
            let read = (heads + 2 * kept + 1) * d * WORD;
            plain(format!("{heads}+{kept}x{d}"), rows * (read + written), 3 * rows * (heads + kept) * d)
        }
        "attn_split" | "attn_token" => attention(f, load),
        "attn_merge" => {
            let (heads, d) = (f.get("heads")?, f.get("head_dim")?);
            let splits = u64::from(load.step.splits);
            let bytes = WORD * rows * heads * (splits * (d + 2) + d);
            plain(format!("{heads}x{d}, {splits} parts"), bytes, 2 * rows * heads * d * splits)
        }
        "sample" | "row_nll" => {
            let vocab = f.get("vocab")?;
            plain(format!("{vocab}"), WORD * outs * vocab, outs * vocab)
        }
        _ => None,
    }
}

/// Bits of an element of keys and values: of the kernel's width, or f16 where it takes all.
fn page_bits(variant: &Variant) -> u64 {
    variant.pages.trim_start_matches("kv").parse().unwrap_or(16)
}

/// Keys and values are read once for all rows; each row works on those that it sees.
fn attention(f: &Fields<'_>, load: &Load) -> Option<Cost> {
    let (heads, of_group, d) = (f.get("heads")?, f.get("heads_per_group")?, f.get("head_dim")?);
    let window = match f.get("window")? {
        0 => u64::MAX,
        window => window,
    };
    let seen = |position: u32| (u64::from(position) + 1).min(window);
    let (first, last) = (*load.positions.first()?, *load.positions.last()?);
    let tokens = u64::from(last) + 1 - (u64::from(first) + 1).saturating_sub(window);
    let products: u64 = load.positions.iter().map(|p| seen(*p)).sum();
    let rows = u64::from(load.step.rows);
    let pages = 2 * heads / of_group.max(1) * d * tokens * page_bits(f.variant) / 8;
    let partial = WORD * rows * heads * (d + u64::from(load.step.splits) * (d + 2));
    let shape = format!("{heads}x{d}, {tokens} tokens");
    Some(Cost { shape, matrix: None, bytes: pages + partial, flops: 4 * heads * d * products })
}

#[cfg(test)]
mod tests {
    use bytemuck::bytes_of;
    use concertina_shaders::{AttnParams, MatmulParams, variant};

    use super::*;

    fn load(positions: std::ops::Range<u32>) -> Load {
        let step = Step { rows: positions.len() as u32, out_rows: 1, splits: 1, ..Step::default() };
        Load { step, positions: positions.collect() }
    }

    #[test]
    fn a_matrix_costs_its_weights_and_its_vectors() {
        let params = MatmulParams { n: 64, panels: 3, accumulate: 1, ..MatmulParams::default() };
        let fields = Fields { variant: variant("matvec.q4_1").expect("in the table"), params: bytes_of(&params) };
        let cost = cost(&fields, &load(5..7)).expect("known");
        assert_eq!(cost.shape, "64x96");
        assert_eq!(cost.bytes, 64 * 3 * 20 + 4 * 2 * (96 + 2 * 64));
        assert_eq!(cost.flops, 2 * 64 * 96 * 2);
    }

    #[test]
    fn an_adapter_inside_a_product_costs_both() {
        let params = MatmulParams { n: 64, panels: 3, accumulate: 1, ..MatmulParams::default() };
        let of = |name| {
            let fields = Fields { variant: variant(name).expect("in the table"), params: bytes_of(&params) };
            cost(&fields, &load(5..7)).expect("known")
        };
        let (plain, adapted) = (of("matvec.q4_1"), of("matvec_adapted.q4_1"));
        assert_eq!(adapted.matrix, plain.matrix);
        assert_eq!(adapted.bytes, plain.bytes + 8 * (96 + 64) + 64);
        assert_eq!(adapted.flops, plain.flops + 2 * 2 * 8 * (96 + 64));
    }

    #[test]
    fn the_head_is_not_cut() {
        let cut = |out_rows| {
            let params = MatmulParams { n: 64, panels: 3, out_rows, ..MatmulParams::default() };
            is_cut(&Fields { variant: variant("matvec.q4_1").expect("in the table"), params: bytes_of(&params) })
        };
        assert!(cut(0) && !cut(1));
    }

    #[test]
    fn attention_sees_the_past_and_no_more_than_its_window() {
        let variant = variant("attn_split").expect("in the table");
        let at = |window| {
            let params = AttnParams { heads: 4, heads_per_group: 2, head_dim: 8, window, ..AttnParams::default() };
            cost(&Fields { variant, params: bytes_of(&params) }, &load(10..12)).expect("known").flops
        };
        assert_eq!(at(0), 4 * 4 * 8 * (11 + 12));
        assert_eq!(at(3), 4 * 4 * 8 * (3 + 3));
    }
}
