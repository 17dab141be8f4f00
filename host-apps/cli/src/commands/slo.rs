//! How fast an answer must be, as flags; and what became of it, as reports have it.

use anyhow::Result;
use clap::{Args, ValueEnum};
use concertina::elastic::slo::{Class, Decision, Restriction, Target};
use concertina::{Answer, EncoderUse, Engine, Plan, Planner, Wish};
use pollster::block_on;
use serde_json::{Value, json};

use crate::cli::GlobalArgs;
use crate::models::resolve::resolve_model;
use crate::session::{LEVEL, load_encoder};

/// Latency targets, and levels that are fixed.
#[derive(Debug, Clone, Default, Args)]
pub struct SloArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Read this share of the words of what is said, in percent; takes an encoder, or a text before it
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(20..=100))]
    pub prompt_level: Option<u32>,
}

/// Latency targets that the model's level is to meet.
#[derive(Debug, Clone, Default, Args)]
pub struct TargetArgs {
    /// Most milliseconds to the first token: the model, and with an encoder the prompt, are made smaller to meet it
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub ttft_ms: Option<f64>,
    /// Most milliseconds for each token after it
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    pub tpot_ms: Option<f64>,
    /// Both as a share of what the whole model takes for the whole prompt
    #[arg(long, value_enum, value_name = "CLASS")]
    pub class: Option<ClassArg>,
    /// Run this level of the model, in percent of what can be cut, whatever the target
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub level: Option<u32>,
}

/// Shares of the whole model's time to the first token, and for each token after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClassArg {
    /// 100 and 100 %
    Full,
    /// 80 and 90 %
    Relaxed,
    /// 60 and 80 %
    Normal,
    /// 40 and 70 %
    Quick,
    /// 20 and 60 %
    Urgent,
    /// 20 and 50 %
    Instant,
}

impl From<ClassArg> for Class {
    fn from(class: ClassArg) -> Self {
        match class {
            ClassArg::Full => Self::Full,
            ClassArg::Relaxed => Self::Relaxed,
            ClassArg::Normal => Self::Normal,
            ClassArg::Quick => Self::Quick,
            ClassArg::Urgent => Self::Urgent,
            ClassArg::Instant => Self::Instant,
        }
    }
}

fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ms) if ms.is_finite() && ms > 0.0 => Ok(ms),
        _ => Err("a number of milliseconds above 0".into()),
    }
}

impl TargetArgs {
    /// As the planner takes it.
    pub fn wish(&self) -> Wish {
        Wish {
            target: Target { ttft_ms: self.ttft_ms, tpot_ms: self.tpot_ms },
            class: self.class.map(Class::from),
            only: Restriction { prompt: None, level: self.level },
        }
    }

    /// The level where nothing is to be planned.
    pub fn fixed_level(&self) -> u32 {
        self.level.unwrap_or(LEVEL)
    }

    /// Whether the latency of this device must be known: a level alone needs no prediction.
    pub fn plans(&self) -> bool {
        let wish = self.wish();
        !wish.target.is_any() || wish.class.is_some()
    }
}

impl SloArgs {
    /// As the planner takes it.
    pub fn wish(&self) -> Wish {
        let wish = self.target.wish();
        Wish { only: Restriction { prompt: self.prompt_level, ..wish.only }, ..wish }
    }

    /// Whether calls are planned: a level alone needs no prediction.
    pub fn plans(&self) -> bool {
        self.target.plans() || self.prompt_level.is_some_and(|percent| percent < 100)
    }

    /// The planner for these flags, if they need one; `piece`: tokens of prompt that calls run at once, 0 for as many as fit.
    ///
    /// # Errors
    /// If measuring fails.
    pub fn planner(&self, engine: &mut Engine, global: &GlobalArgs, piece: usize) -> Result<Option<Planner>> {
        if !self.plans() {
            return Ok(None);
        }
        let path = resolve_model(global.model.as_deref(), global.offline)?;
        load_encoder(engine, &path, global.offline)?;
        let mut planner = block_on(Planner::open(engine, crate::tuning::host()))?;
        planner.set_piece(piece);
        block_on(planner.measure_encoder(engine))?;
        Ok(Some(planner))
    }

    /// Whether something can tell which words of a prompt may go: an encoder, or that there are some before what stays.
    ///
    /// # Errors
    /// If nothing can and some are to go.
    pub fn ensure_shortens(&self, engine: &Engine, has_before: bool) -> Result<()> {
        anyhow::ensure!(
            has_before || engine.heads().is_some() || self.prompt_level.is_none_or(|percent| percent == 100),
            "--prompt-level takes an encoder: heads in NAME.encoder.safetensors beside NAME.elastic.gguf; `run` and `ctx ask` \
             need none for what --passage or --examples puts before a prompt"
        );
        Ok(())
    }
}

/// An answer's way from its target to its times.
#[derive(Debug, Clone)]
pub struct Outcome {
    decision: Decision,
    target: Target,
    /// Words of the prompt, and of what was read of it.
    words: (usize, usize),
    /// Its tokens, without what the template writes around it, and those that were read.
    tokens: (usize, usize),
    encoder: EncoderUse,
    /// Milliseconds that deciding took: part of the time to the first token.
    took_ms: f64,
    /// Milliseconds that compiling kernels took before the call: no part of it.
    ready_ms: f64,
    ttft_ms: f64,
    tpot_ms: f64,
    level: u32,
}

impl Outcome {
    /// Of a call as it was planned.
    pub fn new(plan: &Plan, ready_ms: f64, answer: &Answer) -> Self {
        Self {
            decision: plan.decision,
            target: plan.target,
            words: (plan.words, plan.kept_words),
            tokens: (plan.prompt_tokens, plan.kept_tokens),
            encoder: plan.encoder,
            took_ms: plan.took_ms,
            ready_ms,
            ttft_ms: plan.took_ms + answer.ttft_ms,
            tpot_ms: answer.tpot_ms,
            level: answer.level,
        }
    }

    /// Whether the times are within the target.
    pub fn met(&self) -> bool {
        self.target.allows(self.ttft_ms, self.tpot_ms)
    }

    /// For reports.
    pub fn json(&self) -> Value {
        json!({
            "prompt_level": self.decision.pair.prompt,
            "level": self.level,
            "prompt_words": self.words.0,
            "kept_words": self.words.1,
            "prompt_tokens": self.tokens.0,
            "kept_tokens": self.tokens.1,
            "encoder": encoder(self.encoder),
            "decide_ms": self.took_ms,
            "ready_ms": self.ready_ms,
            "ttft_ms": self.ttft_ms,
            "tpot_ms": self.tpot_ms,
            "predicted_ttft_ms": self.decision.ttft_ms,
            "predicted_tpot_ms": self.decision.tpot_ms,
            "target_ttft_ms": self.target.ttft_ms,
            "target_tpot_ms": self.target.tpot_ms,
            "feasible": self.decision.feasible,
            "met": self.met(),
        })
    }

    /// How much was read, for reports of calls that answer nothing and have no times.
    pub fn kept_json(&self) -> Value {
        json!({
            "level": self.level,
            "prompt_level": self.decision.pair.prompt,
            "prompt_tokens": self.tokens.0,
            "kept_tokens": self.tokens.1,
            "encoder": encoder(self.encoder),
        })
    }

    /// How much of the prompt was read, for people.
    pub fn kept(&self) -> String {
        format!("{} of {} tokens (encoder {})", self.tokens.1, self.tokens.0, encoder(self.encoder))
    }

    /// For people.
    pub fn line(&self) -> String {
        let d = &self.decision;
        let kept = self.kept();
        let ready = match self.ready_ms {
            ms if ms >= 1.0 => format!("; kernels made ready before in {ms:.0} ms"),
            _ => String::new(),
        };
        let most = |ms: Option<f64>| ms.map_or_else(|| "any".to_owned(), |ms| format!("{ms:.0} ms"));
        let met = match (self.met(), d.feasible) {
            (true, _) => "met",
            (false, true) => "missed",
            (false, false) => "missed, as foreseen: nothing smaller is left",
        };
        format!(
            "[level {} %, {kept}; first token {:.0} ms (predicted {:.0}, target {}), then {:.1} ms \
             (predicted {:.1}, target {}): {met}{ready}]",
            self.level,
            self.ttft_ms,
            d.ttft_ms,
            most(self.target.ttft_ms),
            self.tpot_ms,
            d.tpot_ms,
            most(self.target.tpot_ms),
        )
    }
}

fn encoder(used: EncoderUse) -> &'static str {
    match used {
        EncoderUse::None => "none",
        EncoderUse::Aside => "aside",
        EncoderUse::Used => "used",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_flag_of_its_name() {
        let names: Vec<String> = ClassArg::value_variants()
            .iter()
            .filter_map(|v| Some(v.to_possible_value()?.get_name().to_owned()))
            .collect();
        assert_eq!(names, Class::ALL.map(|class| class.name().to_owned()));
        for arg in ClassArg::value_variants() {
            let class = Class::from(*arg);
            let help = arg.to_possible_value().and_then(|v| Some(v.get_help()?.to_string())).unwrap_or_default();
            let (ttft, tpot) = class.percents();
            assert_eq!(help, format!("{ttft} and {tpot} %"));
        }
    }

    #[test]
    fn a_level_alone_needs_no_prediction() {
        let level = TargetArgs { level: Some(40), ..TargetArgs::default() };
        assert!(!level.plans() && TargetArgs { ttft_ms: Some(5.0), ..level.clone() }.plans());
        let said = |percent| SloArgs { target: level.clone(), prompt_level: Some(percent) };
        assert!(!said(100).plans() && said(60).plans(), "what is shortened is decided on");
        assert!(milliseconds("0").is_err() && milliseconds("nan").is_err() && milliseconds("2.5").is_ok());
    }
}
