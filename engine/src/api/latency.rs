//! How long this device takes at each level: measured once, kept by the host, corrected by every call.

use std::sync::Arc;

use concertina_elastic::slo::decide;
use concertina_elastic::slo::{
    Class, Curve, Decision, Hints, LevelCost, Profile, Profiled, Request, Restriction, Target,
};
use web_time::Instant;

use super::{Answer, Engine};
use crate::forward::{BatchRow, OutRow, Pass, Tail};
use crate::tune::TuneHost;
use crate::{Error, Result};

/// Rows of the pieces of prefill that are measured. Software adapters take eight rows at a time.
const ROWS: [usize; 3] = [8, 32, 128];
/// Rows that the kernels of prefill take together, on software adapters and on others.
const ROWS_TOGETHER: (usize, usize) = (8, 16);
/// Tokens of context behind which a token is measured.
const CONTEXTS: [usize; 2] = [16, 1024];
/// Tokens that are generated for a measurement.
const TOKENS: usize = 3;
/// Levels that are measured where there is no table.
const LEVELS: [u32; 5] = [20, 40, 60, 80, 100];

/// Predicts and decides for one engine.
#[derive(Debug)]
pub struct Planner {
    profile: Profile,
    key: String,
    host: Option<Arc<dyn TuneHost>>,
    hints: Hints,
    trust_heads: bool,
}

impl Planner {
    /// With what the host kept for this adapter, model and package; measured now where it kept nothing, which takes about as
    /// long as 1,000 tokens of prefill.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn open(engine: &mut Engine, host: Option<Arc<dyn TuneHost>>) -> Result<Self> {
        let key = key(engine);
        let kept = host.as_ref().and_then(|host| serde_json::from_str(&host.load(&key)?).ok());
        let profile = match kept.filter(Profile::is_sound) {
            Some(profile) => profile,
            None => engine.measure_latency().await?,
        };
        let planner = Self { profile, key, host, hints: Hints::prior(), trust_heads: false };
        planner.keep();
        Ok(planner)
    }

    /// Have the host keep what is known.
    pub fn keep(&self) {
        if let (Some(host), Ok(text)) = (&self.host, serde_json::to_string(&self.profile)) {
            host.store(&self.key, &text);
        }
    }

    /// What the device takes.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Milliseconds that the prompt's encoder took for so many words.
    pub fn set_encoder(&mut self, curve: Curve) {
        self.profile.encoder = curve;
    }

    /// How good levels are, where it was measured; see [`Hints`].
    pub fn set_hints(&mut self, hints: Hints) {
        self.hints = hints;
    }

    /// Let the decision head choose among what is feasible, in place of the general order of levels.
    pub fn set_trust_heads(&mut self, trust: bool) {
        self.trust_heads = trust;
    }

    /// Whether it does.
    pub fn trusts_heads(&self) -> bool {
        self.trust_heads
    }

    /// A class's target for a prompt of so many tokens behind so many.
    pub fn target(&self, class: Class, prompt: usize, context: usize) -> Target {
        let full = (self.profile.ttft_ms(100, prompt, context), self.profile.tpot_ms(100, context + prompt));
        class.target(full.0, full.1)
    }

    /// Which part of the prompt and of the model a call gets. `hints`: of the decision head, in place of the general ones.
    pub fn decide(&self, request: &Request, hints: Option<&Hints>, encoder: bool, fixed: Restriction) -> Decision {
        decide(&self.profile, request, hints.unwrap_or(&self.hints), encoder, fixed)
    }

    /// What a level takes for a prompt of so many tokens behind so many: TTFT and TPOT in milliseconds.
    pub fn predict(&self, level: u32, prompt: usize, context: usize) -> (f64, f64) {
        (self.profile.ttft_ms(level, prompt, context), self.profile.tpot_ms(level, context + prompt))
    }

    /// An answer came. `before_ms`: what passed before its prefill began.
    pub fn observe(&mut self, answer: &Answer, before_ms: f64) {
        let call = Profiled {
            prompt: answer.prefill_tokens,
            context: answer.context_tokens,
            ttft_ms: answer.ttft_ms - before_ms,
            tpot_ms: (answer.tokens.len() > 1).then_some(answer.tpot_ms),
        };
        self.profile.observe(answer.level, call);
    }
}

fn key(engine: &Engine) -> String {
    let spec = &engine.model.spec;
    let weights: u64 = engine.model.sources.iter().map(|source| source.len()).sum();
    let package = engine.package.map_or_else(String::new, |hash| hash.iter().map(|b| format!("{b:02x}")).collect());
    let exact = if engine.options.exact { ", exact" } else { "" };
    format!("latency 2: {}; {} layers, {weights} bytes, package {package}{exact}", engine.adapter(), spec.layers.len())
}

impl Engine {
    /// Measure prefill and decode at every level of the table (at fifths without one).
    ///
    /// # Errors
    /// If the device fails or no context is free.
    pub async fn measure_latency(&mut self) -> Result<Profile> {
        let levels = if self.levels().is_empty() { LEVELS.to_vec() } else { self.levels().to_vec() };
        let vocab = self.model.spec.vocab as u32;
        let text: Vec<u32> = (0..ROWS[ROWS.len() - 1] as u32 + 1).map(|t| t * 31 % vocab).collect();
        let rows_together = if self.is_software() { ROWS_TOGETHER.0 } else { ROWS_TOGETHER.1 };
        let mut profile = Profile { rows_together, ..Profile::default() };
        self.device().await?;
        for level in levels {
            let mut ttft = Vec::new();
            // The first time everything is made ready.
            for (i, rows) in ROWS[..1].iter().chain(&ROWS).enumerate() {
                let rows = (*rows).min(self.context_limit());
                let taken = self.time_prefill(&text[..rows], level).await?;
                if i > 0 && ttft.last().is_none_or(|(before, _)| *before < rows as f64) {
                    ttft.push((rows as f64, taken));
                }
            }
            let mut tpot: Vec<(f64, f64)> = Vec::new();
            for context in CONTEXTS {
                let context = context.min(self.context_limit().saturating_sub(TOKENS + 2));
                if tpot.last().is_none_or(|(before, _)| *before < context as f64) {
                    tpot.push((context as f64, self.time_token(context, level).await?));
                }
            }
            // A prompt is its prefill and a first token.
            let first = Curve(tpot.clone());
            ttft.iter_mut().for_each(|(rows, ms)| (*rows, *ms) = (*rows + 1.0, *ms + first.at(*rows)));
            ttft.insert(0, (1.0, first.at(1.0)));
            profile.levels.push(LevelCost { level, ttft: Curve(ttft), tpot: Curve(tpot), correction: (1.0, 1.0) });
        }
        if profile.is_sound() {
            return Ok(profile);
        }
        Err(Error::Gpu(format!("measured times make no sense: {profile:?}")))
    }

    /// Milliseconds for keys and values of `text`.
    async fn time_prefill(&mut self, text: &[u32], level: u32) -> Result<f64> {
        let mut context = self.context()?;
        let start = Instant::now();
        self.pieces(&mut context, text, level, 0, Tail::None, |_, _| Vec::new()).await?;
        self.device().await?.backend.flush().await?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }

    /// Milliseconds a token behind `before` tokens, whose keys and values are whatever lies there: it takes as long.
    async fn time_token(&mut self, before: usize, level: u32) -> Result<f64> {
        let mut context = self.context()?;
        context.tokens = vec![0; before + 1];
        self.settle(&mut context, level)?;
        let sampler = super::Sampling::greedy().sampler()?;
        let device = self.device().await?;
        context.grow(before + 1)?;
        context.table.wrote(before + 1);
        let (base, region) = (device.first_entry(&context), context.region());
        device.forward.set_sampler(&mut device.backend, region, &sampler, &[])?;
        device.forward.set_table(&mut device.backend, base, &context.table.words(0));
        let pass = Pass { level, density: false, widths: context.table.widths() };
        let row = BatchRow { token: Some(0), position: before as u32, table: base };
        let out = OutRow { row: 0, sampler: region, wanted: 0, feed: u32::MAX };
        let mut times = Vec::new();
        for i in 0..=TOKENS {
            let start = Instant::now();
            device.forward.run(&mut device.backend, pass, &[row], &[out], Tail::Sample).await?;
            if i > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }
}
