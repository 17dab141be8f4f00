//! A call with a target: how much of its prompt and of the model it gets (ElastiLM, arXiv 2409.09071).

use concertina_elastic::prompt::{join, shorten, words};
use concertina_elastic::slo::{
    Class, Curve, Decision, Hints, PROMPT_LEVELS, Request, Restriction, Target, Ways, Words,
};
use concertina_formats::Model;
use web_time::Instant;

use super::{Engine, Planner};
use crate::Result;
use crate::encoder::{self, Encoded};

/// Prompts with fewer words that may go are read whole: there is nothing to choose among.
const FEWEST_WORDS: usize = 12;
/// Words of the texts that the encoder's time is measured on.
const MEASURED_WORDS: [usize; 2] = [24, 160];

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Wish {
    /// Times in milliseconds.
    pub target: Target,
    /// Times as a share of the whole model's on the whole prompt; where both are given the stricter one holds.
    pub class: Option<Class>,
    /// Levels that are not to be chosen.
    pub only: Restriction,
}

impl Wish {
    /// Whether there is nothing to decide.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What of a text stays, and what may go.
#[derive(Clone, Copy)]
pub struct Stay<'a> {
    /// Words that stay, by number, whatever the prompt level; they count towards it.
    pub words: &'a dyn Fn(usize) -> bool,
    /// The others are solved examples before what stays: a small sub-model may do better without them.
    pub examples: bool,
}

impl Stay<'static> {
    /// Any word may go.
    pub const NOTHING: Self = Self { words: &|_| false, examples: false };
}

/// A prompt and what stands around it.
pub struct Prompt<'a> {
    /// The part that may be shortened.
    pub text: &'a str,
    /// What of it stays.
    pub stay: Stay<'a>,
    /// All tokens that are run for such a text: the template's too.
    pub tokens: &'a dyn Fn(&Model, &str) -> Result<Vec<u32>>,
    /// Tokens of the context before it.
    pub context: usize,
    /// Of those, tokens that a level must compute anew: level, tokens. Others are as the next lower level that is named.
    pub stale: &'a [(u32, usize)],
    /// Milliseconds that pass before its prefill: waiting, restoring.
    pub before_ms: f64,
}

/// What became of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncoderUse {
    /// None is loaded, or the prompt is too short for one.
    None,
    /// It was not run: the whole prompt, or the last of its words beside those that stay, could be read at a level that is as
    /// good, the encoder's time counted.
    Aside,
    /// It read the prompt.
    Used,
}

/// What is left of a prompt at a level.
struct Shortened {
    percent: u32,
    words: usize,
    text: String,
    tokens: Vec<u32>,
}

/// What a call gets.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Tokens to run.
    pub tokens: Vec<u32>,
    /// What is left of the prompt's text.
    pub text: String,
    /// Tokens of the whole prompt, without what stands around it.
    pub prompt_tokens: usize,
    /// Of those, tokens that are left. Words may be cut into other tokens where their neighbours are gone.
    pub kept_tokens: usize,
    /// Levels, and the times that they should take.
    pub decision: Decision,
    /// What was asked for, in milliseconds.
    pub target: Target,
    /// Words of the prompt.
    pub words: usize,
    /// Words of what is left of it.
    pub kept_words: usize,
    /// What became of the encoder.
    pub encoder: EncoderUse,
    /// Milliseconds that deciding took: they are part of the time to the first token.
    pub took_ms: f64,
}

impl Planner {
    /// Make the encoder ready that is loaded, if one is, and measure it unless the host kept how long it takes.
    ///
    /// # Errors
    /// If the device fails.
    pub async fn measure_encoder(&mut self, engine: &mut Engine) -> Result<()> {
        if engine.heads().is_none() {
            self.set_encoder(Curve::default());
            return Ok(());
        }
        let known = !self.profile().encoder.0.is_empty();
        let mut points: Vec<(f64, f64)> = Vec::new();
        // The first time kernels are compiled.
        let texts = MEASURED_WORDS[..1].iter().chain(MEASURED_WORDS.iter().cycle().take(2 * MEASURED_WORDS.len()));
        for (i, count) in texts.enumerate().take(if known { 1 } else { usize::MAX }) {
            let text: Vec<String> = (0..*count).map(|word| format!("word{}", word % 7)).collect();
            let begin = Instant::now();
            engine.encode(&text.join(" "), encoder::Target::NONE).await?;
            let taken = (*count as f64, begin.elapsed().as_secs_f64() * 1e3);
            match points.iter_mut().find(|(words, _)| *words == taken.0) {
                _ if i == 0 => {}
                // Of two the one that nothing came in between.
                Some(point) => point.1 = point.1.min(taken.1),
                None => points.push(taken),
            }
        }
        if !known {
            self.set_encoder(Curve(points));
        }
        Ok(())
    }

    /// Decide on the level alone, for `prompt` tokens behind `context` whose prefill begins in `before_ms`. `stale`: as
    /// [`Prompt::stale`].
    pub fn plan_level(
        &self,
        prompt: usize,
        context: usize,
        stale: &[(u32, usize)],
        before_ms: f64,
        wish: &Wish,
    ) -> (Decision, Target) {
        let target = self.target_of(wish, prompt, context);
        let margin = self.margin();
        let request = Request {
            target,
            prompt: 0,
            counted: &[],
            words: 0,
            stay: 0,
            examples: false,
            fixed: prompt,
            context,
            stale,
            before_ms,
            encoded_ms: None,
            margin,
        };
        (self.decide(&request, None, Ways::default(), wish.only), target)
    }

    /// Decide what a call gets, and shorten its prompt accordingly.
    ///
    /// # Errors
    /// If the tokenizer, the template or the device fails.
    pub async fn plan(&self, engine: &mut Engine, prompt: &Prompt<'_>, wish: &Wish) -> Result<Plan> {
        let begin = Instant::now();
        let whole = (prompt.tokens)(&engine.model, prompt.text)?;
        let fixed = (prompt.tokens)(&engine.model, "")?.len().min(whole.len());
        let of_text = words(prompt.text);
        let target = self.target_of(wish, whole.len(), prompt.context);
        let marked: Vec<bool> = (0..of_text.len()).map(prompt.stay.words).collect();
        let staying: Vec<usize> = (0..of_text.len()).filter(|word| marked[*word]).collect();
        let droppable = of_text.len() - staying.len();
        // What stays is counted: its words need not be as long as the others.
        let stay_tokens = match (droppable, staying.len()) {
            (0, _) => whole.len(),
            (_, 0) => fixed,
            _ => (prompt.tokens)(&engine.model, &join(prompt.text, &of_text, &staying))?.len().min(whole.len()),
        };
        let request = Request {
            target,
            prompt: whole.len() - stay_tokens,
            counted: &[],
            words: of_text.len(),
            stay: staying.len(),
            examples: prompt.stay.examples,
            fixed: stay_tokens,
            context: prompt.context,
            stale: prompt.stale,
            before_ms: prompt.before_ms,
            encoded_ms: None,
            margin: self.margin(),
        };
        let enough = droppable >= FEWEST_WORDS;
        let ways = Ways { scored: enough && engine.heads().is_some(), last: enough && request.stay > 0 };
        // What nothing can shorten is read whole, whatever was asked for.
        let only = if ways == Ways::default() { Restriction { prompt: None, ..wish.only } } else { wish.only };
        let first = self.decide(&request, None, ways, only);
        let prompt_tokens = whole.len() - fixed;
        let mut plan = Plan {
            tokens: whole,
            text: prompt.text.to_owned(),
            prompt_tokens,
            kept_tokens: prompt_tokens,
            decision: first,
            target,
            words: of_text.len(),
            kept_words: of_text.len(),
            encoder: if ways.scored { EncoderUse::Aside } else { EncoderUse::None },
            took_ms: 0.0,
        };
        if first.pair.prompt < 100 {
            let (mut scores, mut heads): (Vec<f32>, _) = ((0..of_text.len()).map(|place| place as f32).collect(), None);
            // From here on words are left in one way.
            let mut ways = Ways { scored: false, ..ways };
            if first.words == Words::Scored && request.must_choose(first.pair.prompt) {
                let encoded = engine.encode(prompt.text, self.percents(&request)).await?;
                (plan.encoder, ways) = (EncoderUse::Used, Ways { scored: true, last: false });
                heads = self.trusts_heads().then(|| hints(engine, &encoded)).flatten();
                scores = encoded.scores;
            }
            // Words are not as long as each other: the choice is made by the tokens of each shortened text.
            let levels = only.prompt.map_or_else(|| PROMPT_LEVELS.to_vec(), |percent| vec![percent]);
            let shorter = levels.into_iter().filter(|percent| *percent < 100 && (*percent > 0 || request.stay > 0));
            let shortened = shorter.map(|percent| {
                let kept = shorten(&of_text, &scores, percent, &marked);
                let text = join(prompt.text, &of_text, &kept);
                let tokens = (prompt.tokens)(&engine.model, &text)?;
                Ok(Shortened { percent, words: kept.len(), text, tokens })
            });
            let shortened = shortened.collect::<Result<Vec<Shortened>>>()?;
            let counted = |of: &Shortened| (of.percent, of.tokens.len().saturating_sub(request.fixed));
            let counted: Vec<(u32, usize)> = shortened.iter().map(counted).collect();
            let encoded_ms = (plan.encoder == EncoderUse::Used).then(|| begin.elapsed().as_secs_f64() * 1e3);
            let request = Request { counted: &counted, encoded_ms, ..request };
            plan.decision = self.decide(&request, heads.as_ref(), ways, only);
            let chosen = shortened.into_iter().find(|of| of.percent == plan.decision.pair.prompt);
            if let Some(Shortened { words, text, tokens, .. }) = chosen {
                plan.kept_words = words;
                plan.kept_tokens = tokens.len().saturating_sub(fixed);
                (plan.text, plan.tokens) = (text, tokens);
            }
        }
        plan.took_ms = begin.elapsed().as_secs_f64() * 1e3;
        Ok(plan)
    }

    /// The target in milliseconds.
    pub fn target_of(&self, wish: &Wish, prompt: usize, context: usize) -> Target {
        let Some(class) = wish.class else { return wish.target };
        let of_class = self.target(class, prompt, context);
        let least = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Target {
            ttft_ms: least(wish.target.ttft_ms, of_class.ttft_ms),
            tpot_ms: least(wish.target.tpot_ms, of_class.tpot_ms),
        }
    }

    /// The target as the decision head knows it: percent of what the whole model takes.
    fn percents(&self, request: &Request<'_>) -> encoder::Target {
        let (ttft, tpot) = self.predict(100, request.fixed + request.prompt, request.context);
        let percent = |most: Option<f64>, full: f64| {
            most.map_or(100, |most| (most / full.max(1e-9) * 100.0).round().clamp(1.0, 100.0) as u32)
        };
        encoder::Target {
            ttft_percent: percent(request.target.ttft_ms, ttft),
            tpot_percent: percent(request.target.tpot_ms, tpot),
        }
    }
}

/// What the decision head says, as logarithms of probabilities.
fn hints(engine: &Engine, encoded: &Encoded) -> Option<Hints> {
    let heads = engine.heads()?;
    let scores = |levels: &[u32], logits: &[f32]| -> Vec<(u32, f64)> {
        let most = logits.iter().fold(f32::NEG_INFINITY, |m, l| m.max(*l));
        let sum: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
        levels.iter().zip(logits).map(|(level, l)| (*level, f64::from(l - most) - sum.ln())).collect()
    };
    Some(Hints {
        prompt: scores(&heads.prompt_levels, &encoded.decision.prompt),
        level: scores(&heads.model_levels, &encoded.decision.model),
        ..Hints::default()
    })
}
