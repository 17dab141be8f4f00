//! Heads from bytes, checked.

use safetensors::tensor::Dtype;

use super::layer::{BLOCK, BLOCK_BYTES, matrices, numbers};
use super::malformed;
use super::{DecisionHead, Dense, EncoderId, FILE, Head, Heads, Layer, Linear, Matrix, Norm, ScoreHead, VERSION};
use crate::Error;
use crate::container::Container;

/// Largest of any size: far above every encoder's, and small enough that products of two do not overflow.
const MAX_SIZE: usize = 1 << 15;
/// Tensors of a file: 16 of each layer, and what reads the rows.
const TENSORS: usize = 2 * 16 + 2 + 6;

impl Heads {
    /// Read and check heads. `bytes` may be a mapped file: what is kept is copied.
    ///
    /// # Errors
    /// [`Error`] naming what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let file = Container::open(FILE, VERSION, bytes)?;
        let head: Head = file.head()?;
        check_encoder(&head.encoder)?;
        let lists = [&head.ttft_targets, &head.tpot_targets, &head.prompt_levels, &head.model_levels];
        if lists.iter().any(|list| list.len() > 100) {
            return Err(malformed("head", "a list of more than 100 percentages"));
        }
        let dim = head.encoder.dim;
        let linear = |name: &str, rows: usize| -> Result<Linear, Error> {
            Ok(Linear {
                weight: file.floats(&format!("{name}.weight"), &[rows, dim])?,
                bias: file.floats(&format!("{name}.bias"), &[rows])?,
            })
        };
        let heads = Self {
            score: ScoreHead { layer: layer(&file, "score", &head.encoder)?, out: linear("score.out", 1)? },
            decision: DecisionHead {
                layer: layer(&file, "decision", &head.encoder)?,
                prompt: linear("decision.prompt", head.prompt_levels.len())?,
                model: linear("decision.model", head.model_levels.len())?,
                ttft: file.floats("decision.ttft", &[head.ttft_targets.len(), dim])?,
                tpot: file.floats("decision.tpot", &[head.tpot_targets.len(), dim])?,
            },
            encoder: head.encoder,
            model_blake3: head.model_blake3,
            ttft_targets: head.ttft_targets,
            tpot_targets: head.tpot_targets,
            prompt_levels: head.prompt_levels,
            model_levels: head.model_levels,
            report: head.report,
        };
        if file.len() != TENSORS {
            return Err(malformed("tensors", format!("{}, expected {TENSORS}", file.len())));
        }
        heads.check()?;
        Ok(heads)
    }

    /// Whether all parts fit each other.
    pub(super) fn check(&self) -> Result<(), Error> {
        check_encoder(&self.encoder)?;
        for (name, hash) in
            [("encoder.source_blake3", &self.encoder.source_blake3), ("model_blake3", &self.model_blake3)]
        {
            if hash.len() != 64 || !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(malformed(name, format!("'{hash}' is no BLAKE3 hash of 64 hexadecimal digits")));
            }
        }
        let lists = [
            ("ttft_targets", &self.ttft_targets),
            ("tpot_targets", &self.tpot_targets),
            ("prompt_levels", &self.prompt_levels),
            ("model_levels", &self.model_levels),
        ];
        for (name, list) in lists {
            let rising = list.windows(2).all(|w| w[0] < w[1]);
            if !rising || list.last() != Some(&100) || list[0] == 0 {
                return Err(malformed(name, format!("{list:?} do not rise from above 0 to 100")));
            }
        }
        let (id, dim) = (&self.encoder, self.encoder.dim);
        self.score.layer.check("score", id)?;
        self.score.out.check("score.out", 1, dim)?;
        let decision = &self.decision;
        decision.layer.check("decision", id)?;
        decision.prompt.check("decision.prompt", self.prompt_levels.len(), dim)?;
        decision.model.check("decision.model", self.model_levels.len(), dim)?;
        numbers("decision.ttft", &decision.ttft, self.ttft_targets.len() * dim)?;
        numbers("decision.tpot", &decision.tpot, self.tpot_targets.len() * dim)
    }
}

fn check_encoder(id: &EncoderId) -> Result<(), Error> {
    let sizes = [id.bottom_layers, id.dim, id.heads, id.ffn, id.positions];
    let whole = id.heads > 0 && id.dim.is_multiple_of(id.heads);
    // `[CLS]`, `[SEP]` and at least one token between them.
    let blocks = id.dim.is_multiple_of(BLOCK) && id.ffn.is_multiple_of(BLOCK) && id.positions > 2;
    if sizes.iter().any(|n| !(1..=MAX_SIZE).contains(n)) || !whole || !blocks {
        return Err(malformed("encoder", format!("{id:?}")));
    }
    Ok(())
}

fn layer(file: &Container<'_>, head: &str, id: &EncoderId) -> Result<Layer, Error> {
    let [q, k, v, o, up, down] = matrices(id).map(|(name, rows, cols)| -> Result<Dense, Error> {
        let name = format!("{head}.layer.{name}");
        let blocks = file.bytes(&format!("{name}.weight"), Dtype::U8, &[rows, cols / BLOCK * BLOCK_BYTES])?;
        Ok(Dense {
            weight: Matrix { rows, cols, blocks: blocks.to_vec() },
            bias: file.floats(&format!("{name}.bias"), &[rows])?,
        })
    });
    let norm = |name: &str| -> Result<Norm, Error> {
        Ok(Norm {
            weight: file.floats(&format!("{head}.layer.{name}.weight"), &[id.dim])?,
            bias: file.floats(&format!("{head}.layer.{name}.bias"), &[id.dim])?,
        })
    };
    let (attn_norm, ffn_norm) = (norm("attn_norm")?, norm("ffn_norm")?);
    Ok(Layer { q: q?, k: k?, v: v?, o: o?, attn_norm, up: up?, down: down?, ffn_norm })
}
