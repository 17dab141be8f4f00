//! How long this device takes at each level: measured once, kept by the host, corrected by every call.

use std::sync::Arc;

use concertina_elastic::slo::decide;
use concertina_elastic::slo::{
    Class, Curve, Decision, Hints, LevelCost, Profile, Profiled, Request, Restriction, Target, Ways,
};
use concertina_kv::Widths;
use web_time::Instant;

use super::{Answer, Engine};
use crate::forward::{BatchRow, OutRow, Pass, Tail};
use crate::tune::TuneHost;
use crate::{Error, Result};

/// Rows of the pieces of prefill that are measured. Kernels that prefill takes from nine rows on may cost for 16 what they cost for 24.
const ROWS: [usize; 5] = [8, 16, 24, 64, 128];
/// Rows that the kernels of prefill take together, on software adapters and on others.
pub(super) const ROWS_TOGETHER: (usize, usize) = (8, 16);
/// Tokens of context behind which a token is measured; and, the last, a piece of so many rows.
const CONTEXTS: [usize; 2] = [16, 1024];
const ROWS_BEHIND: usize = 24;
/// Tokens that are generated for a measurement.
const TOKENS: usize = 3;
/// Levels that are measured where there is no table. Of a table all are: how many layers a level keeps does not follow its percent.
const LEVELS: [u32; 5] = [20, 40, 60, 80, 100];
/// Times that a length is measured at most, all levels in turn, so that a disturbance hits all alike. Twice, if both agree, and else
/// until two do. The least of each is kept.
const ROUNDS: usize = 6;
/// Share by which rounds agree.
const AGREE: f64 = 0.05;
/// Share by which they differ where other programs run beside.
const DISTURBED: f64 = 0.25;

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
    /// With what the host kept for this adapter, model and package; measured now where it kept nothing, or where calls were far
    /// from it: that takes about as long as 700 tokens of prefill a level.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn open(engine: &mut Engine, host: Option<Arc<dyn TuneHost>>) -> Result<Self> {
        let key = key(engine);
        let kept = host.as_ref().and_then(|host| serde_json::from_str(&host.load(&key)?).ok());
        let kept: Option<Profile> = kept.filter(Profile::is_sound);
        let profile = match kept {
            Some(profile) if !profile.is_stale() => profile,
            // What is measured anew is as new as it was at first, but for the encoder.
            old => {
                let encoder = old.map(|old| old.encoder).unwrap_or_default();
                let progress = |done, total| {
                    if let Some(host) = &host {
                        host.progress("latency", done, total);
                    }
                };
                Profile { encoder, ..engine.measure_latency(&progress).await? }
            }
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

    /// Tokens of prompt that calls run in one piece, [`GenerateOptions::piece`](crate::GenerateOptions::piece).
    pub fn set_piece(&mut self, rows: usize) {
        if rows > 0 {
            self.profile.piece_rows = rows.min(self.profile.piece_rows.max(1));
        }
    }

    /// Whether the levels should be measured anew when there is time; the next [`Planner::open`] does it.
    pub fn is_stale(&self) -> bool {
        self.profile.is_stale()
    }

    /// Shares of a target that are left free for what predictions are off by: of TTFT, of TPOT.
    pub fn margin(&self) -> (f64, f64) {
        (self.profile.ttft.margin(), self.profile.tpot.margin())
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
    pub fn decide(&self, request: &Request<'_>, hints: Option<&Hints>, ways: Ways, fixed: Restriction) -> Decision {
        decide(&self.profile, request, hints.unwrap_or(&self.hints), ways, fixed)
    }

    /// What a level takes for a prompt of so many tokens behind so many: TTFT and TPOT in milliseconds.
    pub fn predict(&self, level: u32, prompt: usize, context: usize) -> (f64, f64) {
        (self.profile.ttft_ms(level, prompt, context), self.profile.tpot_ms(level, context + prompt))
    }

    /// An answer came. `before_ms`: what passed before its prefill began. Of an answer in whose time kernels were compiled
    /// nothing is learnt: the next one will not wait for them.
    pub fn observe(&mut self, answer: &Answer, before_ms: f64) {
        if answer.compiled {
            return;
        }
        let steps = answer.tokens.len().saturating_sub(1);
        let call = Profiled {
            prompt: answer.prefill_tokens,
            context: answer.context_tokens,
            ttft_ms: answer.ttft_ms - before_ms,
            tpot: (steps > 0).then_some((answer.tpot_ms, steps)),
        };
        self.profile.observe(answer.level, call);
    }
}

fn key(engine: &Engine) -> String {
    let spec = &engine.model.spec;
    let weights: u64 = engine.model.sources.iter().map(|source| source.len()).sum();
    let package = engine.package.map_or_else(String::new, |hash| hash.iter().map(|b| format!("{b:02x}")).collect());
    let exact = if engine.options.exact { ", exact" } else { "" };
    format!("latency 8: {}; {} layers, {weights} bytes, package {package}{exact}", engine.adapter(), spec.layers.len())
}

/// What is measured at every level.
#[derive(Debug, Clone, Copy)]
enum Length {
    /// So many rows of a prompt.
    Piece(usize),
    /// So many of them behind a context of so many tokens.
    Behind(usize, usize),
    /// A token behind so many.
    Token(usize),
}

/// Milliseconds that a length took, round after round, at each level.
#[derive(Debug, Clone)]
struct Measured {
    length: Length,
    rounds: Vec<Vec<f64>>,
}

impl Measured {
    /// How far the two fastest rounds are apart, as a share; 0 of none.
    fn apart(&self) -> f64 {
        let mut sums: Vec<f64> = self.rounds.iter().map(|round| round.iter().sum()).collect();
        sums.sort_by(f64::total_cmp);
        sums.get(1).map_or(0.0, |next| next / sums[0] - 1.0)
    }

    fn is_done(&self) -> bool {
        self.rounds.len() >= 2 && self.apart() <= AGREE
    }

    /// The least that the level with this index took.
    fn at(&self, level: usize) -> f64 {
        least(self.rounds.iter().map(|round| round[level]))
    }
}

impl Engine {
    /// Measure prefill and decode at the levels of the table (at fifths without one). `progress` is told the steps that are
    /// done, and how many there are.
    ///
    /// # Errors
    /// If the device fails or no context is free.
    pub async fn measure_latency(&mut self, progress: &dyn Fn(usize, usize)) -> Result<Profile> {
        let levels = if self.levels().is_empty() { LEVELS.to_vec() } else { self.levels().to_vec() };
        self.device().await?;
        let most = self.context_limit().saturating_sub(TOKENS + 2);
        let lengths = |all: &[usize], most: usize| {
            let mut lengths: Vec<usize> = all.iter().map(|n| (*n).min(most).max(1)).collect();
            lengths.dedup();
            lengths
        };
        let rows_at_once = self.device().await?.forward.capacity().rows;
        let rows = lengths(&ROWS, most.min(rows_at_once));
        let contexts = lengths(&CONTEXTS, most);
        let far = contexts[contexts.len() - 1].min(most.saturating_sub(ROWS_BEHIND));
        let behind = (far > 0).then(|| Length::Behind(ROWS_BEHIND.min(rows_at_once), far));
        let lengths = rows.iter().map(|rows| Length::Piece(*rows)).chain(behind);
        let lengths = lengths.chain(contexts.iter().map(|context| Length::Token(*context)));
        let mut all: Vec<Measured> = lengths.map(|length| Measured { length, rounds: Vec::new() }).collect();
        let steps = levels.len() + ROUNDS * all.len();
        let mut done = 0;
        let mut step = |n: usize| {
            done += n;
            progress(done.min(steps), steps);
        };
        for level in &levels {
            step(1);
            self.ready_for(*level, rows_at_once + rows[0] + 1, 0, Widths::default(), false).await?;
        }
        for _ in 0..ROUNDS {
            // All levels at a length, then the next length: what is compared was measured within a second or two, and a length's
            // rounds are seconds apart, so that what disturbs one leaves the next alone.
            for measured in &mut all {
                step(1);
                if measured.is_done() {
                    continue;
                }
                let mut round = Vec::with_capacity(levels.len());
                for level in &levels {
                    round.push(self.time(measured.length, *level).await?);
                }
                measured.rounds.push(round);
            }
        }
        let apart = all.iter().map(Measured::apart).fold(0.0, f64::max);
        let together = if self.is_software() { ROWS_TOGETHER.0 } else { ROWS_TOGETHER.1 };
        let costs = levels.iter().enumerate().map(|(i, level)| {
            let (mut piece, mut tpot, mut behind) = (Curve::default(), Curve::default(), 0.0);
            for measured in &all {
                let ms = measured.at(i);
                match measured.length {
                    Length::Piece(rows) => piece.0.push((rows as f64, ms)),
                    Length::Token(context) => tpot.0.push((context as f64, ms)),
                    // Pieces come before it.
                    Length::Behind(rows, far) => {
                        behind = ((ms - piece.at(rows as f64)) / (rows * far) as f64).max(0.0);
                    }
                }
            }
            LevelCost { level: *level, piece, behind, tpot }
        });
        let profile = Profile::of(costs.collect()).map(|profile| Profile {
            rows_together: together,
            piece_rows: rows_at_once,
            disturbed: apart > DISTURBED,
            ..profile
        });
        match profile {
            Some(profile) if profile.is_sound() => Ok(profile),
            other => Err(Error::Gpu(format!("measured times make no sense: {other:?}"))),
        }
    }

    async fn time(&mut self, length: Length, level: u32) -> Result<f64> {
        match length {
            Length::Piece(rows) => self.time_piece(rows, 0, level).await,
            Length::Behind(rows, before) => self.time_piece(rows, before, level).await,
            Length::Token(before) => self.time_token(before, level).await,
        }
    }

    /// Milliseconds for `rows` tokens and a sampled one after them, behind `before` tokens whose keys and values are whatever lies
    /// there: it takes as long.
    async fn time_piece(&mut self, rows: usize, before: usize, level: u32) -> Result<f64> {
        let mut context = self.context()?;
        context.tokens = vec![0; before + rows];
        self.settle(&mut context, level)?;
        let vocab = self.model.spec.vocab;
        let sampler = super::Sampling::greedy().sampler()?;
        let device = self.device().await?;
        context.grow(before + rows)?;
        let (base, region) = (device.first_entry(&context), context.region());
        device.forward.set_sampler(&mut device.backend, region, &sampler, &[])?;
        device.forward.set_table(&mut device.backend, base, &context.table.words(0));
        let pass = Pass { level, density: false, widths: context.table.widths(), together: false };
        let row =
            |i: usize| BatchRow { token: Some((i * 31 % vocab) as u32), position: (before + i) as u32, table: base };
        let batch: Vec<BatchRow> = (0..rows).map(row).collect();
        let out = OutRow { row: rows as u32 - 1, sampler: region, wanted: 0, feed: u32::MAX };
        let start = Instant::now();
        device.forward.run(&mut device.backend, pass, &batch, &[out], Tail::Sample).await?;
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
        let pass = Pass { level, density: false, widths: context.table.widths(), together: false };
        let row = BatchRow { token: Some(0), position: before as u32, table: base };
        let out = OutRow { row: 0, sampler: region, wanted: 0, feed: u32::MAX };
        let mut times = Vec::new();
        for _ in 0..=TOKENS {
            let start = Instant::now();
            device.forward.run(&mut device.backend, pass, &[row], &[out], Tail::Sample).await?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(least(times))
    }
}

/// The time that other work on the machine disturbed the least. A machine that is busy for seconds spoils the middle of a few
/// times, and what it makes of calls is followed call by call ([`concertina_elastic::slo::Drift`]).
fn least(times: impl IntoIterator<Item = f64>) -> f64 {
    let least = times.into_iter().fold(f64::INFINITY, f64::min);
    if least.is_finite() { least } else { 0.0 }
}
