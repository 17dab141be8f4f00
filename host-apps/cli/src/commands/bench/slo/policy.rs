//! Ways to choose levels.

use anyhow::{Context as _, Result};
use concertina::Planner;
use concertina::elastic::slo::{Class, Restriction};

use super::requests::Request;
use crate::session::Session;

/// The policy `dropped`: whole layers are left out, and the prompt is whole. Time goes down evenly with each.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Layers {
    /// Layers that can be left out.
    pub most: u32,
    /// Share of TTFT and of TPOT that a layer saves.
    pub saves: (f64, f64),
}

impl Layers {
    /// Most layers that have a level.
    pub const MOST: usize = 28;

    /// The level of the sub-model without so many layers: those below a table's 20, then between its 20 and 30.
    pub fn level(out: u32) -> u32 {
        match out {
            0 => 100,
            1..20 => out,
            _ => out + 1,
        }
    }

    /// As few layers to leave out as the target allows, with the margin that the planner leaves too; and whether that meets it.
    pub fn out(self, planner: &Planner, class: Class, tokens: usize) -> (u32, bool) {
        let target = planner.target(class, tokens, 0).shrunk(planner.margin());
        let (ttft, tpot) = planner.predict(100, tokens, 0);
        let left = |saves: f64, out: u32| 1.0 - saves * f64::from(out);
        let fits = |out: &u32| target.allows(ttft * left(self.saves.0, *out), tpot * left(self.saves.1, *out));
        (0..=self.most).find(fits).map_or((self.most, false), |out| (out, true))
    }
}

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
                planner.target(request.class, **tokens, 0).shrunk(planner.margin()).allows(ttft, tpot)
            })
            .count()
        };
        // Of equals the last, which is the largest.
        let best = levels.iter().copied().max_by_key(|level| met(*level));
        best.context("no level was measured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_models_without_layers_have_levels_that_no_table_has() {
        let levels: Vec<u32> = (1..=Layers::MOST as u32).map(Layers::level).collect();
        assert!(levels.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(levels.iter().all(|level| level % 10 != 0 || *level == 10) && *levels.last().unwrap() < 30);
        assert_eq!(Layers::level(0), 100);
    }
}
