//! Ways to choose levels.

use anyhow::{Context as _, Result};
use concertina::Planner;
use concertina::elastic::slo::Restriction;

use super::requests::Request;
use crate::session::Session;

/// Most layers that the policy `dropped` leaves out; their sub-models take the levels 1 to this.
pub const DROPPED: u32 = 18;

/// A way to choose levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Prompt and model, by the planner.
    Ours,
    /// All of both.
    Full,
    /// One level for all requests: of those that meet the targets of most requests by prediction the largest.
    Single,
    /// All of the prompt, and as many layers as the target allows.
    Layers,
    /// The prompt alone is shortened.
    Prompt,
    /// The model alone is made smaller.
    Model,
}

impl Policy {
    const ALL: [Self; 6] = [Self::Ours, Self::Full, Self::Single, Self::Layers, Self::Prompt, Self::Model];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Full => "full",
            Self::Single => "single",
            Self::Layers => "dropped",
            Self::Prompt => "prompt",
            Self::Model => "model",
        }
    }

    pub fn named(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|policy| policy.name() == name).ok_or_else(|| format!("one of {}", names()))
    }

    /// What the planner may not choose.
    pub fn only(self, single: u32) -> Restriction {
        match self {
            Self::Ours | Self::Layers => Restriction::default(),
            Self::Full => Restriction { prompt: Some(100), level: Some(100) },
            Self::Single => Restriction { prompt: Some(100), level: Some(single) },
            Self::Prompt => Restriction { prompt: None, level: Some(100) },
            Self::Model => Restriction { prompt: Some(100), level: None },
        }
    }

    /// The level of the policy that has one for all; 100 for the others.
    pub fn single_level(self, planner: &Planner, requests: &[Request], session: &Session) -> Result<u32> {
        if self != Self::Single {
            return Ok(100);
        }
        let levels: Vec<u32> = planner.profile().levels.iter().map(|cost| cost.level).collect();
        let tokenizer = session.engine.tokenizer();
        let lengths = requests.iter().map(|r| Ok(tokenizer.encode_prompt(r.prompt(), false)?.len()));
        let lengths = lengths.collect::<Result<Vec<usize>>>()?;
        let met = |level: u32| {
            let all = requests.iter().zip(&lengths);
            all.filter(|(request, tokens)| {
                let (ttft, tpot) = planner.predict(level, **tokens, 0);
                planner.target(request.class, **tokens, 0).allows(ttft, tpot)
            })
            .count()
        };
        // Of equals the last, which is the largest.
        let best = levels.iter().copied().max_by_key(|level| met(*level));
        best.context("no level was measured")
    }

    /// Layers to leave out so that the target is met: time goes down by as much as weights do.
    pub fn layers_out(planner: &Planner, layers: usize, request: &Request, tokens: usize) -> u32 {
        let target = planner.target(request.class, tokens, 0);
        let (ttft, tpot) = planner.predict(100, tokens, 0);
        // What is not layers: the smallest and the largest level tell.
        let low = planner.profile().levels.first().map_or(100, |cost| cost.level);
        let of_low = planner.predict(low, tokens, 0);
        let share = f64::from(low) / 100.0;
        let head = |a: f64, b: f64| if low < 100 { ((a - share * b) / (1.0 - share)).clamp(0.0, b) } else { 0.0 };
        let of_head = (head(of_low.0, ttft), head(of_low.1, tpot));
        let fits = |out: u32| {
            let kept = 1.0 - f64::from(out) / layers as f64;
            target.allows(of_head.0 + (ttft - of_head.0) * kept, of_head.1 + (tpot - of_head.1) * kept)
        };
        (0..=DROPPED).find(|out| fits(*out)).unwrap_or(DROPPED)
    }
}
