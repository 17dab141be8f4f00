//! Which prompt level and model level a call gets.

use super::{Profile, Target};

/// Prompt levels that are tried, in percent of the words. At 0 nothing but words that stay is left; where there are none it is
/// not tried.
pub const PROMPT_LEVELS: [u32; 6] = [0, 20, 40, 60, 80, 100];

/// Where a target cannot be met, choices are as near to it as the nearest that take up to this times as long.
const NEAR: f64 = 1.1;

/// A prompt level and a model level, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    /// Share of the prompt's words that is read. Words that stay whatever it is count towards it.
    pub prompt: u32,
    /// Level of the sub-model.
    pub level: u32,
}

/// What a decision is about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request<'a> {
    /// What the call asks for.
    pub target: Target,
    /// Tokens of the prompt that can be left out.
    pub prompt: usize,
    /// Of those, tokens that are left at a prompt level where they were counted: percent, tokens. Of other levels it is taken that
    /// words are as long as each other.
    pub counted: &'a [(u32, usize)],
    /// Words of the prompt: what an encoder would read.
    pub words: usize,
    /// Of those, words that stay at every prompt level.
    pub stay: usize,
    /// The others are solved examples before what stays.
    pub examples: bool,
    /// Tokens that must be run whatever is left out: templates, questions.
    pub fixed: usize,
    /// Tokens before them, which are there already.
    pub context: usize,
    /// Of those, tokens that a level must compute anew: level, tokens. Others are as the next lower level that is named.
    pub stale: &'a [(u32, usize)],
    /// Milliseconds that pass before prefill: restoring a context, waiting.
    pub before_ms: f64,
    /// Milliseconds that the encoder took where it has read them: they are part of every choice's time.
    pub encoded_ms: Option<f64>,
    /// Shares of the target that are left free for what predictions are off by: of TTFT, of TPOT.
    pub margin: (f64, f64),
}

impl Request<'_> {
    /// Words that are left at a prompt level of those that may go.
    pub fn left(&self, percent: u32) -> usize {
        let wanted = (self.words * percent.min(100) as usize).div_ceil(100);
        wanted.saturating_sub(self.stay).min(self.words.saturating_sub(self.stay))
    }

    /// What the words are that may go.
    pub fn may_go(&self) -> MayGo {
        match (self.stay > 0, self.examples) {
            (false, _) => MayGo::Any,
            (true, false) => MayGo::Before,
            (true, true) => MayGo::Examples,
        }
    }

    /// Whether a prompt level leaves some of those words and drops others: then an encoder must say which.
    pub fn must_choose(&self, percent: u32) -> bool {
        percent < 100 && self.left(percent) > 0
    }

    /// Tokens that are left at a prompt level of those that can be left out.
    fn tokens_left(&self, percent: u32) -> usize {
        let counted = self.counted.iter().find(|(of, _)| *of == percent);
        let may_go = self.words.saturating_sub(self.stay).max(1);
        counted.map_or_else(|| (self.prompt * self.left(percent)).div_ceil(may_go), |(_, tokens)| *tokens)
    }
}

/// What the caller wants of the answer to be fixed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Restriction {
    /// This share of the prompt only.
    pub prompt: Option<u32>,
    /// This level only.
    pub level: Option<u32>,
}

/// What the words of a prompt are that may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayGo {
    /// Any words of it.
    Any,
    /// Words before what stays.
    Before,
    /// Solved examples before what stays.
    Examples,
}

/// Which words are left of a shortened prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Words {
    /// Those that an encoder finds best.
    Scored,
    /// The last ones, nearest to an answer, which cost nothing to find. Only where other words stay: what a prompt is about may
    /// stand anywhere, unless its caller says what it is.
    Last,
}

/// Ways to shorten a prompt that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ways {
    /// There is an encoder.
    pub scored: bool,
    /// Words stay, and the last of the others may be kept beside them.
    pub last: bool,
}

/// How good each choice is, as logarithms: of the decision head, or of accuracies that were measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hints {
    /// Of prompt levels: percent, score.
    pub prompt: Vec<(u32, f64)>,
    /// The same where words stay, such as a question behind examples. Empty: as `prompt`.
    pub before_what_stays: Vec<(u32, f64)>,
    /// The same where the last of the other words are left.
    pub last_before_what_stays: Vec<(u32, f64)>,
    /// What solved examples before what stays are worth to model levels, beside what they are to the whole model: percent, factor.
    /// Below 0 they do harm. Empty: the same to all.
    pub examples: Vec<(u32, f64)>,
    /// Of model levels: percent, score.
    pub level: Vec<(u32, f64)>,
}

impl Hints {
    /// Where nothing is known of a model: how much more surprised SmolLM2-135M was at right answers than the whole model after the
    /// whole prompt, in nats, where one of a prompt's answers must be right, which is what choosing between them turns on. On
    /// held-out questions of train splits with its score head's words (`concertina-trainer examples`, `--any` for 160; behind five
    /// examples 200) and its recovery adapters (`compare --exam held-out`, 200). What came out no worse than the whole lies a little
    /// below it, in order; levels 50 and 60, of which the larger came out the worse one, have their mean. What examples are worth is of
    /// `benches/examples`; levels that were not measured have that of the next, 30 of 40 and 50 of 30.
    pub fn prior() -> Self {
        let prompt = [(20, -1.25), (40, -0.45), (60, -0.17), (80, -0.05), (100, 0.0)];
        let before_what_stays = [(20, -0.28), (40, -0.06), (60, -0.04), (80, -0.02), (100, 0.0)];
        let last_before_what_stays = [(0, -0.53), (20, -0.36), (40, -0.18), (60, -0.06), (80, -0.03), (100, 0.0)];
        let examples = [(20, -0.4), (30, -1.0), (60, -0.7), (70, -0.6), (80, 0.6), (90, 0.7), (100, 1.0)];
        let level = [
            (20, -2.16),
            (30, -1.83),
            (40, -0.55),
            (50, -0.30),
            (60, -0.29),
            (70, -0.16),
            (80, -0.11),
            (90, -0.05),
            (100, 0.0),
        ];
        Self {
            prompt: prompt.to_vec(),
            before_what_stays: before_what_stays.to_vec(),
            last_before_what_stays: last_before_what_stays.to_vec(),
            examples: examples.to_vec(),
            level: level.to_vec(),
        }
    }

    fn of(scores: &[(u32, f64)], percent: u32) -> f64 {
        // What was not scored is as good as the next lower that was.
        let below = scores.iter().filter(|(of, _)| *of <= percent).max_by_key(|(of, _)| *of);
        below.or(scores.first()).map_or(0.0, |(_, score)| *score)
    }

    /// Score of a pair.
    pub fn score(&self, pair: Pair, words: Words, may_go: MayGo) -> f64 {
        let prompt = match words {
            Words::Last if !self.last_before_what_stays.is_empty() => &self.last_before_what_stays,
            _ if may_go != MayGo::Any && !self.before_what_stays.is_empty() => &self.before_what_stays,
            _ => &self.prompt,
        };
        let of_level = Self::of(&self.level, pair.level);
        if may_go != MayGo::Examples || self.examples.is_empty() {
            return Self::of(prompt, pair.prompt) + of_level;
        }
        let without =
            Self::of(if self.last_before_what_stays.is_empty() { prompt } else { &self.last_before_what_stays }, 0);
        without + Self::of(&self.examples, pair.level) * (Self::of(prompt, pair.prompt) - without) + of_level
    }
}

/// What was decided, and what it should take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// The choice.
    pub pair: Pair,
    /// Which words are left, where the prompt is shortened.
    pub words: Words,
    /// Milliseconds to the first token, the encoder's included.
    pub ttft_ms: f64,
    /// Milliseconds for each token after it.
    pub tpot_ms: f64,
    /// Of those, the encoder's; 0: it is not run.
    pub encoder_ms: f64,
    /// Whether the target is met by these numbers. If not, this is the best choice of those that miss by little more than the
    /// least.
    pub feasible: bool,
}

/// The best feasible pair. An encoder's cost counts wherever it must choose among words; it is not run where the whole
/// prompt can be read at a level that is as good, where the last words are as good as its own for the time, or where nothing but words
/// that stay is left. Where nothing is feasible, it is the best of the pairs that take hardly longer than the nearest to the target:
/// a target that is missed anyway is not worth a worse answer for a moment. Where some would be in time but for the margin, only those
/// count.
pub fn decide(profile: &Profile, request: &Request<'_>, hints: &Hints, ways: Ways, fixed: Restriction) -> Decision {
    let only = fixed.prompt.map(|only| [only]);
    let levels_of_prompt: &[u32] = only.as_ref().map_or(&PROMPT_LEVELS, |only| only);
    let prompts = levels_of_prompt.iter().flat_map(|&percent| {
        let shortens = percent < 100 && request.prompt > 0;
        let last = (shortens && ways.last && request.stay > 0).then_some((percent, Words::Last));
        // What is whole is whole either way, and at 0 there is nothing to score. A level that is fixed is told the price of.
        let scores = percent == 100 || (shortens && ways.scored && percent > 0) || (only.is_some() && last.is_none());
        last.into_iter().chain(scores.then_some((percent, Words::Scored)))
    });
    let prompts: Vec<(u32, Words)> = prompts.collect();
    let levels: Vec<u32> = match fixed.level {
        Some(only) => vec![only],
        None => profile.levels.iter().map(|cost| cost.level).collect(),
    };
    let one = |pair: Pair, words: Words| price(profile, request, ways, pair, words);
    let all = prompts.iter().flat_map(|&(prompt, words)| {
        let levels = levels.iter();
        levels.map(move |level| one(Pair { prompt, level: *level }, words))
    });
    let all: Vec<Decision> = all.collect();
    let good = all.iter().filter(|d| d.feasible);
    // Of equals the one that needs no encoder, then the faster one.
    let rank = |d: &&Decision| (hints.score(d.pair, d.words, request.may_go()), -d.encoder_ms, -d.ttft_ms);
    let best = good.max_by(|a, b| order(rank(a), rank(b)));
    let least = all.iter().map(|d| missed(d, request)).fold(f64::INFINITY, f64::min);
    // What is met by the numbers, if not by the margin, may be met; then nothing that is not.
    let most = if least > 1.0 { NEAR * least } else { (NEAR * least).min(1.0) };
    let near = || all.iter().filter(|d| missed(d, request) <= most).max_by(|a, b| order(rank(a), rank(b)));
    best.or_else(near).copied().unwrap_or_else(|| one(Pair { prompt: 100, level: 100 }, Words::Scored))
}

fn order(a: (f64, f64, f64), b: (f64, f64, f64)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.total_cmp(&b.2))
}

/// By what factor the target is missed, at worst.
fn missed(d: &Decision, request: &Request<'_>) -> f64 {
    let over = |taken: f64, most: Option<f64>| most.map_or(0.0, |most| taken / most.max(1e-9));
    over(d.ttft_ms, request.target.ttft_ms).max(over(d.tpot_ms, request.target.tpot_ms))
}

fn price(profile: &Profile, request: &Request<'_>, ways: Ways, pair: Pair, words: Words) -> Decision {
    let kept = request.tokens_left(pair.prompt);
    let named = request.stale.iter().filter(|(level, _)| *level <= pair.level);
    let stale = named.max_by_key(|(level, _)| *level).map_or(0, |(_, tokens)| *tokens);
    let before = request.context - stale.min(request.context);
    let tokens = request.fixed + kept + stale.min(request.context);
    let reads = ways.scored && words == Words::Scored && request.must_choose(pair.prompt);
    let would_take = if reads { profile.encoder_ms(request.words) } else { 0.0 };
    let encoder_ms = request.encoded_ms.unwrap_or(would_take);
    let prefill_ms = profile.ttft_ms(pair.level, tokens, before);
    let ttft_ms = request.before_ms + encoder_ms + prefill_ms;
    let tpot_ms = profile.tpot_ms(pair.level, before + tokens);
    Decision {
        pair,
        words,
        ttft_ms,
        tpot_ms,
        encoder_ms,
        feasible: request.target.shrunk(request.margin).allows(ttft_ms, tpot_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::super::profile::tests::profile;
    use super::*;

    fn request(ttft: f64, tpot: f64) -> Request<'static> {
        let target = Target { ttft_ms: Some(ttft), tpot_ms: Some(tpot) };
        let margin = (0.0, 0.0);
        Request {
            target,
            prompt: 200,
            counted: &[],
            words: 150,
            stay: 0,
            examples: false,
            fixed: 20,
            context: 0,
            stale: &[],
            before_ms: 0.0,
            encoded_ms: None,
            margin,
        }
    }

    fn ways(encoder: bool) -> Ways {
        Ways { scored: encoder, last: false }
    }

    fn pair(ttft: f64, tpot: f64, encoder: bool) -> (u32, u32, bool) {
        let d = decide(&profile(), &request(ttft, tpot), &Hints::prior(), ways(encoder), Restriction::default());
        (d.pair.prompt, d.pair.level, d.feasible)
    }

    #[test]
    fn all_of_it_where_there_is_time() {
        assert_eq!(pair(1e9, 1e9, true), (100, 100, true));
        assert_eq!(pair(235.0, 13.0, true), (100, 100, true));
    }

    #[test]
    fn less_of_it_where_there_is_less() {
        // The time for a token leaves the level only.
        assert_eq!(pair(1e9, 8.5, false), (100, 60, true));
        // The time to the first can be had by either.
        let (prompt, level, feasible) = pair(120.0, 1e9, true);
        assert!(feasible && (prompt < 100 || level < 100), "{prompt} {level}");
        assert_eq!(pair(120.0, 1e9, false).0, 100);
    }

    #[test]
    fn what_cannot_be_met_is_missed_by_little() {
        assert_eq!(pair(1.0, 1.0, true), (20, 20, false));
        assert_eq!(pair(1.0, 1.0, false), (100, 20, false));
    }

    #[test]
    fn a_prompt_is_not_given_up_for_a_target_that_is_missed_anyway() {
        let d = decide(&profile(), &request(1e9, 1.0), &Hints::prior(), ways(true), Restriction::default());
        // Tokens after a shorter prompt take less here, so that some of it goes; before, it was 20 %.
        assert!(!d.feasible && d.pair.prompt >= 60, "{d:?}");
        assert!(d.tpot_ms <= NEAR * profile().tpot_ms(20, 60), "{d:?}");
        let fastest = Pair { prompt: 20, level: 20 };
        let score = |pair| Hints::prior().score(pair, Words::Scored, MayGo::Any);
        assert!(score(d.pair) > score(fastest), "{d:?}");
    }

    #[test]
    fn where_only_the_margin_is_missing_nothing_is_picked_that_will_be_late() {
        // Most of it is fixed, so that prompt levels lie within a tenth of each other.
        let ttft = 1.02 * profile().ttft_ms(20, 840, 0);
        let r = Request { fixed: 800, ..request(ttft, 1e9) };
        let at = |r: &Request<'_>| {
            let only = Restriction { level: Some(20), ..Restriction::default() };
            decide(&profile(), r, &Hints::prior(), Ways { scored: false, last: true }, only)
        };
        let r = Request { stay: 1, ..r };
        let careful = at(&Request { margin: (0.1, 0.1), ..r });
        assert!(!careful.feasible && careful.ttft_ms <= ttft, "{careful:?}");
        // Where all are late, one that is hardly later than the nearest is taken for being better.
        let late = at(&Request { target: Target { ttft_ms: Some(0.9 * ttft), tpot_ms: None }, ..r });
        assert!(late.pair.prompt > careful.pair.prompt, "{late:?}");
    }

    #[test]
    fn the_head_is_followed_only_to_what_is_feasible() {
        let level = vec![(20, 0.0), (40, 9.0), (60, 0.0)];
        let hints = Hints { prompt: vec![(20, 5.0), (100, 0.0)], level, ..Hints::default() };
        let decided = |ttft| decide(&profile(), &request(ttft, 1e9), &hints, ways(true), Restriction::default());
        assert_eq!(decided(1e9).pair, Pair { prompt: 20, level: 40 });
        assert!(decided(1e9).encoder_ms > 0.0);
        let tight = decided(30.0);
        assert!(tight.feasible && tight.ttft_ms <= 30.0);
    }

    #[test]
    fn whatever_is_asked_for_the_numbers_are_those_of_the_choice() {
        let profile = profile();
        for i in 0..400_u32 {
            let (ttft, tpot) = (f64::from(i * 7 % 300), f64::from(i * 13 % 16));
            let r = Request { context: (i as usize * 31) % 900, before_ms: f64::from(i % 9), ..request(ttft, tpot) };
            let only = Restriction { prompt: (i % 5 == 0).then_some(60), level: (i % 7 == 0).then_some(80) };
            let d = decide(&profile, &r, &Hints::prior(), ways(i % 2 == 0), only);
            assert_eq!(d.feasible, r.target.allows(d.ttft_ms, d.tpot_ms));
            let careful =
                decide(&profile, &Request { margin: (0.1, 0.1), ..r }, &Hints::prior(), ways(i % 2 == 0), only);
            assert!(!careful.feasible || r.target.allows(careful.ttft_ms * 1.1, careful.tpot_ms * 1.1));
            assert!(only.prompt.is_none_or(|p| p == d.pair.prompt) && only.level.is_none_or(|l| l == d.pair.level));
            assert!(d.encoder_ms == 0.0 || d.pair.prompt < 100);
            let read = decide(&profile, &Request { encoded_ms: Some(7.0), ..r }, &Hints::prior(), ways(true), only);
            assert_eq!(read.encoder_ms, 7.0, "once it was run it counts for the whole prompt too");
        }
    }

    #[test]
    fn tokens_that_were_counted_are_those_that_cost() {
        // A fifth of the words is a third of the tokens here.
        let counted = [(20, 70), (40, 100)];
        let r = Request { counted: &counted, ..request(1e9, 1e9) };
        let at = |r: &Request<'_>, prompt| {
            let only = Restriction { prompt: Some(prompt), level: Some(100) };
            decide(&profile(), r, &Hints::prior(), ways(false), only).ttft_ms
        };
        assert!(at(&r, 20) > at(&request(1e9, 1e9), 20) && at(&r, 60) == at(&request(1e9, 1e9), 60));
        assert_eq!(at(&r, 20), at(&Request { prompt: 350, ..request(1e9, 1e9) }, 20));
    }

    #[test]
    fn words_that_stay_count_towards_a_prompt_level() {
        // A question of 30 words, 40 tokens, behind 120 words of examples, 160 tokens.
        let r = Request { stay: 30, prompt: 160, fixed: 60, ..request(1e9, 1e9) };
        assert_eq!([100, 60, 40, 20, 0].map(|percent| r.left(percent)), [120, 60, 30, 0, 0]);
        assert_eq!([100, 60, 20, 0].map(|percent| r.must_choose(percent)), [false, true, false, false]);
        let at = |prompt| {
            let only = Restriction { prompt: Some(prompt), level: Some(100) };
            decide(&profile(), &r, &Hints::prior(), ways(true), only)
        };
        assert!(
            at(60).encoder_ms > 0.0 && at(20).encoder_ms == 0.0,
            "nothing is to be chosen where nothing else is left"
        );
        assert_eq!(at(20).ttft_ms, profile().ttft_ms(100, 60, 0));
        assert_eq!(at(100).ttft_ms, profile().ttft_ms(100, 220, 0));
    }

    #[test]
    fn the_last_words_are_left_where_an_encoder_takes_too_long() {
        let both = Ways { scored: true, last: true };
        let r = Request { stay: 20, prompt: 130, fixed: 60, ..request(1e9, 1e9) };
        let at = |r: &Request<'_>, ttft: f64, prompt| {
            let r = Request { target: Target { ttft_ms: Some(ttft), tpot_ms: None }, ..*r };
            decide(&profile(), &r, &Hints::prior(), both, Restriction { prompt, level: Some(100) })
        };
        // Its words are a little better at 60 %, and taken where there is time.
        let (loose, tight) = (at(&r, 1e9, Some(60)), profile().ttft_ms(100, 60 + 70, 0));
        assert_eq!((loose.words, loose.encoder_ms > 0.0), (Words::Scored, true));
        let last = at(&r, tight, None);
        assert_eq!((last.pair.prompt, last.words, last.encoder_ms, last.feasible), (60, Words::Last, 0.0, true));
        // With next to no time nothing but what stays is left.
        assert_eq!(at(&r, profile().ttft_ms(100, 60, 0), None).pair.prompt, 0);
        // Where the caller does not say what stays, the last words alone are never what is left.
        let r = Request { stay: 0, ..r };
        for ttft in [1.0, 50.0, 100.0, 150.0, 1e9] {
            let d = at(&r, ttft, None);
            assert!(d.words == Words::Scored && d.pair.prompt > 0, "{d:?}");
        }
        let none = decide(&profile(), &r, &Hints::prior(), Ways::default(), Restriction::default());
        assert_eq!(none.pair.prompt, 100);
    }

    #[test]
    fn examples_that_a_level_does_not_follow_are_left_out() {
        let both = Ways { scored: true, last: true };
        let hints = Hints { examples: vec![(20, -1.0), (80, 1.0)], ..Hints::prior() };
        let at = |examples: bool, level: u32| {
            let r = Request { stay: 20, prompt: 130, fixed: 60, examples, ..request(1e9, 1e9) };
            decide(&profile(), &r, &hints, both, Restriction { prompt: None, level: Some(level) })
        };
        assert_eq!([(false, 60), (true, 60), (true, 80)].map(|(e, level)| at(e, level).pair.prompt), [100, 0, 100]);
        // What is worth the same to all levels is their own score's.
        let score = |level| hints.score(Pair { prompt: 0, level }, Words::Last, MayGo::Examples);
        let own = |level| Hints::of(&hints.level, level);
        assert!((score(60) - score(100) - own(60) + own(100)).abs() < 1e-12);
        // Where nothing stays there are no examples before it.
        let r = Request { examples: true, ..request(1e9, 1e9) };
        let d = decide(&profile(), &r, &hints, both, Restriction { prompt: None, level: Some(60) });
        assert_eq!(d.pair.prompt, 100);
    }

    #[test]
    fn what_a_level_computes_anew_counts_for_it() {
        let stale = [(80, 400), (100, 400)];
        let r = Request { context: 400, stale: &stale, ..request(450.0, 1e9) };
        let d = decide(&profile(), &r, &Hints::prior(), ways(false), Restriction::default());
        assert_eq!((d.pair.level, d.feasible), (60, true), "{d:?}");
        let d = decide(&profile(), &Request { stale: &[], ..r }, &Hints::prior(), ways(false), Restriction::default());
        assert_eq!(d.pair.level, 100, "{d:?}");
    }
}
