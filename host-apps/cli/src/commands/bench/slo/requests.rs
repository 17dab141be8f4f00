//! Requests: questions of apps, and classes of targets.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use concertina::elastic::slo::Class;
use concertina::formats::Tokenizer;
use fastrand::Rng;

use crate::data::choices::{self, Question};

/// Questions that are read of a file, at most.
const OF_APP: usize = 2000;

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    pub app: String,
    pub class: Class,
    pub question: Question,
}

/// So many requests, the apps in turns, classes at random.
pub fn draw(files: &[PathBuf], count: usize, skew: f64, seed: u64) -> Result<Vec<Request>> {
    let mut apps = Vec::new();
    for file in files {
        let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let name = name.split('.').next().unwrap_or_default().to_owned();
        let mut questions = choices::read(file, Some(OF_APP))?;
        // Choices that complete different texts (WinoGrande's kind) have no common prompt.
        questions
            .retain(|q| q.choices.iter().all(|c| c.context == q.choices[0].context && !c.context.trim().is_empty()));
        ensure!(!questions.is_empty(), "{} has no question whose choices follow one prompt", file.display());
        apps.push((name, questions));
    }
    let mut random = Rng::with_seed(seed);
    let weights = Class::ALL.map(|class| (class, weight(class, skew)));
    let total: f64 = weights.iter().map(|(_, w)| w).sum();
    let mut requests = Vec::with_capacity(count);
    for i in 0..count {
        let (name, questions) = &apps[i % apps.len()];
        let question = &questions[random.usize(..questions.len())];
        let mut at = random.f64() * total;
        let of = weights.iter().find(|(_, w)| {
            at -= w;
            at < 0.0
        });
        let class = of.or(weights.last()).context("there are classes")?.0;
        requests.push(Request { app: name.clone(), class, question: question.clone() });
    }
    Ok(requests)
}

/// Weight of a class: from the loosest to the strictest a line from 1 - skew to 1 + skew.
pub fn weight(class: Class, skew: f64) -> f64 {
    let place = Class::ALL.iter().position(|of| *of == class).unwrap_or_default();
    let middle = (Class::ALL.len() - 1) as f64 / 2.0;
    (1.0 + skew * (place as f64 - middle) / middle).max(0.0)
}

/// Tokens of the longest question with its longest choice.
pub fn longest(requests: &[Request], tokenizer: &Tokenizer) -> Result<usize> {
    let mut most = 1;
    for choice in requests.iter().flat_map(|request| &request.question.choices) {
        most = most.max(tokenizer.encode_prompt(&format!("{}{}", choice.context, choice.continuation), false)?.len());
    }
    Ok(most)
}

/// What questions begin with.
const MARKS: [&str; 3] = ["Question:", "question:", "Goal:"];

impl Request {
    /// What stands before the choices.
    pub fn prompt(&self) -> &str {
        &self.question.choices[0].context
    }

    /// Byte where the part of the prompt begins that always stays: its last question, or its last line. What stands before are
    /// examples or a passage.
    pub fn stays_from(&self) -> usize {
        let prompt = self.prompt();
        let body = prompt.trim_end();
        let question = MARKS.iter().filter_map(|mark| body.rfind(mark)).max();
        question.or_else(|| body.rfind('\n').map(|at| at + 1)).unwrap_or(0)
    }

    /// Whether what stands before are examples: other questions.
    pub fn has_examples(&self) -> bool {
        let before = &self.prompt()[..self.stays_from()];
        MARKS.iter().any(|mark| before.contains(mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skew_moves_weight_and_keeps_its_sum() {
        for skew in [-1.0, -0.25, 0.0, 0.25, 1.0] {
            let weights = Class::ALL.map(|class| weight(class, skew));
            assert!((weights.iter().sum::<f64>() - 6.0).abs() < 1e-9);
            assert_eq!(weights[5] > weights[0], skew > 0.0);
        }
    }
}
