//! What each word of a prompt is worth.

use anyhow::{Context, Result, ensure};
use candle_core::Var;
use serde::{Deserialize, Serialize};

use super::bench::Bench;
use super::prompts::Prompt;
use super::reader::Reader;
use crate::net::{Batch, Net, Site, Tree};
use crate::ops::head::{Mix, Target, loss, surprises};
use crate::ops::to_vec;
use crate::watch::Watch;

/// Several values of each word of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    /// Rise of the surprise at the right answer, in nats, when the word is left out. A word of an example has its share of
    /// what leaving out the example's line does.
    pub effect: Vec<f32>,
    /// The same to first order: `−g·e` summed over the word's tokens, with `e` a token's embedding and `g` the gradient of
    /// the surprise by it. Empty where only the effect was asked for.
    pub gradient: Vec<f32>,
    /// The model's surprise at the word itself, in nats. Empty where only the effect was asked for.
    pub surprisal: Vec<f32>,
    /// Surprise at the right answer after the whole prompt.
    pub whole: f32,
}

/// Label a prompt's words; `all` values, or the effect alone.
///
/// # Errors
/// If the tokenizer or candle refuses.
pub fn labels(reader: &Reader<'_>, net: &Net, prompt: &Prompt, all: bool) -> Result<Labels> {
    let (whole, effect) = left_out(reader, prompt)?;
    let (gradient, surprisal) = if all { first_order(reader, net, prompt)? } else { Default::default() };
    Ok(Labels { effect, gradient, surprisal, whole })
}

/// Labels of many prompts, those that are not in the stage's records yet. Every `all_of`th has all values.
///
/// # Errors
/// As [`labels`], or if the records cannot be written.
pub fn label_all(
    bench: &Bench,
    stage: &str,
    prompts: &[Prompt],
    all_of: usize,
    watch: &mut dyn Watch,
) -> Result<Vec<Labels>> {
    let mut records = bench.records::<Labels>(stage, &format!("every {all_of}th with all values"))?;
    let full = bench.net.full();
    let reader = Reader::new(&bench.net, &bench.model.tokenizer, &full, None)?;
    watch.begin(&format!("words left out of prompts ({stage})"), prompts.len());
    for (i, prompt) in prompts.iter().enumerate().skip(records.found.len()) {
        records.add(labels(&reader, &bench.net, prompt, i % all_of == 0)?)?;
        watch.step(i + 1, "");
    }
    records.found.truncate(prompts.len());
    let fits = |(labels, prompt): (&Labels, &Prompt)| labels.effect.len() == prompt.words.len();
    ensure!(records.found.iter().zip(prompts).all(fits), "the records of {stage} are of other prompts");
    Ok(records.found)
}

/// Surprise at the right answer, and how much it rises without each word.
fn left_out(reader: &Reader<'_>, prompt: &Prompt) -> Result<(f32, Vec<f32>)> {
    let answer = reader.tokens(&prompt.choices[prompt.right])?;
    let ids = reader.tokens(&prompt.text)?;
    let mut tree = Tree::new(ids.clone());
    tree.add(&[&ids[..], &answer].concat(), answer.len());
    let single = (prompt.question..prompt.words.len()).filter(|i| !prompt.keep[*i]).map(|i| vec![i]);
    let parts: Vec<Vec<usize>> = prompt.example_lines().into_iter().chain(single).collect();
    for part in &parts {
        let without = reader.tokens(&prompt.without(part))?;
        tree.add(&[&without[..], &answer].concat(), answer.len());
    }
    let found = reader.pass.surprise_of_many(&[tree])?.swap_remove(0);
    let whole = found[0];
    let mut effect = vec![0f32; prompt.words.len()];
    for (part, surprise) in parts.iter().zip(&found[1..]) {
        part.iter().for_each(|i| effect[*i] = ((surprise - whole) / part.len() as f64) as f32);
    }
    Ok((whole as f32, effect))
}

/// `−g·e` and the model's surprise, word by word.
///
/// # Errors
/// As [`labels`].
pub(super) fn first_order(reader: &Reader<'_>, net: &Net, prompt: &Prompt) -> Result<(Vec<f32>, Vec<f32>)> {
    let mut ids = reader.tokens(&prompt.text)?;
    let tokens = ids.len();
    let answer = reader.tokens(&prompt.choices[prompt.right])?;
    let target = |(i, id): (usize, &u32)| (tokens + i - 1, Target { next: *id, teacher: Vec::new() });
    let rows: Vec<(usize, Target)> = answer.iter().enumerate().map(target).collect();
    ids.extend(&answer);
    let batch = Batch { tokens: ids.len(), ids };
    let mut embedded = None;
    let hidden = reader.pass.hidden_seen(&batch, &mut |layer, site, x| {
        if (layer, site) != (0, Site::Residual) {
            return Ok(None);
        }
        // A variable of zeros: its gradient is that of the embeddings.
        let zeros = Var::zeros(x.shape(), x.dtype(), x.device())?;
        embedded = Some((x.detach(), zeros.clone()));
        Ok(Some((x + zeros.as_tensor())?))
    })?;
    let own = surprises(&hidden.detach(), &net.head, &batch.ids, batch.tokens)?;
    // The loss is a mean over the answer's tokens; what is left out is measured by their sum.
    let grads = loss(&hidden, &net.head, rows, Mix { kl: 0.0, ce: answer.len() as f32 })?.backward()?;
    let (embeddings, zeros) = embedded.context("a model without layers")?;
    let gradients = to_vec(grads.get(zeros.as_tensor()).context("no gradient by the embeddings")?)?;
    let (embeddings, dim) = (to_vec(&embeddings)?, net.spec.dim);
    let products = embeddings.chunks(dim).zip(gradients.chunks(dim));
    let products: Vec<f32> = products.map(|(e, g)| -e.iter().zip(g).map(|(e, g)| e * g).sum::<f32>()).collect();
    // Nothing says how surprising a text's first token is: as the others are on average.
    let known = &own[..tokens - 1];
    let first = known.iter().sum::<f32>() / known.len().max(1) as f32;
    let (mut gradient, mut surprisal) = (Vec::new(), Vec::new());
    let mut begin = 0;
    for word in &prompt.words {
        // A word's tokens end where those of the text up to it do; the space before it is its own.
        let end = reader.tokens(&prompt.text[..word.text.end])?.len().clamp(begin, tokens);
        gradient.push(products[begin..end].iter().sum());
        let surprise = |i: usize| if i == 0 { first } else { own[i - 1] };
        surprisal.push((begin..end).map(surprise).sum());
        begin = end;
    }
    Ok((gradient, surprisal))
}
