//! A model, or a level of it, as a reader of prompts: likelihoods of answers.

use anyhow::Result;
use concertina_elastic::LayerUnits;
use concertina_formats::Tokenizer;

use super::prompts::Prompt;
use crate::net::{Adapters, Net, Pass, Tree};

/// Reads prompts.
pub struct Reader<'a> {
    tokenizer: &'a Tokenizer,
    /// The forward pass.
    pub pass: Pass<'a>,
}

/// How likely a reader finds each answer.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Answers {
    /// Surprise in nats at each choice.
    pub surprise: Vec<f64>,
    /// Tokens of the prompt that was read.
    pub tokens: usize,
}

impl Answers {
    /// The choice with the least surprise a byte, the usual rule where answers differ in length.
    pub fn chosen(&self, prompt: &Prompt) -> usize {
        let each = self.surprise.iter().zip(&prompt.choices).map(|(s, choice)| s / choice.len().max(1) as f64);
        let least = each.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        least.map_or(0, |(i, _)| i)
    }

    /// Whether that is the right one.
    pub fn right(&self, prompt: &Prompt) -> bool {
        self.chosen(prompt) == prompt.right
    }
}

impl<'a> Reader<'a> {
    /// Reads with the first units of every layer.
    ///
    /// # Errors
    /// If the units are not those of the model's layers.
    pub fn new(
        net: &'a Net,
        tokenizer: &'a Tokenizer,
        units: &'a [LayerUnits],
        adapters: Option<&'a Adapters>,
    ) -> Result<Self> {
        Ok(Self { tokenizer, pass: Pass::new(net, units, adapters)? })
    }

    /// Tokens of a text; at least one, so that something stands before an answer.
    ///
    /// # Errors
    /// If the tokenizer refuses.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode(text, false)?;
        if ids.is_empty() {
            ids.extend(self.tokenizer.eos());
        }
        Ok(ids)
    }

    /// What it makes of a prompt's answers after each of the texts.
    ///
    /// # Errors
    /// If the tokenizer or candle refuses.
    pub fn answers(&self, prompt: &Prompt, texts: &[String]) -> Result<Vec<Answers>> {
        let choices: Vec<Vec<u32>> = prompt.choices.iter().map(|c| self.tokens(c)).collect::<Result<_>>()?;
        let tree = |text: &String| -> Result<Tree> {
            let ids = self.tokens(text)?;
            let mut tree = Tree::new(ids.clone());
            choices.iter().for_each(|choice| tree.add(&[&ids[..], choice].concat(), choice.len()));
            Ok(tree)
        };
        let trees = texts.iter().map(tree).collect::<Result<Vec<Tree>>>()?;
        let found = self.pass.surprise_of_many(&trees)?;
        let answers = found.into_iter().zip(&trees);
        Ok(answers.map(|(surprise, tree)| Answers { surprise, tokens: tree.trunk.len() }).collect())
    }
}
