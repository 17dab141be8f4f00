//! When which context is called.

use crate::random::SplitMix;

/// A call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arrival {
    /// Seconds since the trace began.
    pub at_s: f64,
    /// The context.
    pub context: usize,
}

/// Which context is called next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Each as likely as any other.
    Random,
    /// A chain: from each context a few others follow far more often than the rest.
    Markov,
    /// Contexts near one in the middle are called more often, by a bell curve over all of them.
    Gaussian,
}

struct Chooser {
    pattern: Pattern,
    contexts: usize,
    last: usize,
    /// For each context those that mostly follow it.
    followers: Vec<[usize; 3]>,
}

impl Chooser {
    fn new(pattern: Pattern, contexts: usize, random: &mut SplitMix) -> Self {
        let contexts = contexts.max(1);
        let mut draw = || random.below(contexts as u64) as usize;
        let followers = (0..contexts).map(|_| [draw(), draw(), draw()]).collect();
        Self { pattern, contexts, last: 0, followers }
    }

    fn next(&mut self, random: &mut SplitMix) -> usize {
        let any = random.below(self.contexts as u64) as usize;
        self.last = match self.pattern {
            Pattern::Random => any,
            Pattern::Markov if random.chance(0.7) => self.followers[self.last][random.below(3) as usize],
            Pattern::Markov => any,
            Pattern::Gaussian => {
                let middle = self.contexts as f64 / 2.0;
                let drawn = middle + random.normal() * self.contexts as f64 / 6.0;
                drawn.clamp(0.0, self.contexts as f64 - 1.0) as usize
            }
        };
        self.last
    }
}

/// Calls at random times, one every `mean_gap_s` on average.
pub fn poisson(seconds: f64, mean_gap_s: f64, pattern: Pattern, contexts: usize, seed: u64) -> Vec<Arrival> {
    let mut random = SplitMix::new(seed);
    let mut chooser = Chooser::new(pattern, contexts, &mut random);
    let (mut at_s, mut trace) = (0.0, Vec::new());
    loop {
        at_s -= mean_gap_s * (1.0 - random.unit()).ln();
        // A gap of no time at all, or none that is a number, would never end.
        if at_s.is_nan() || at_s > seconds || mean_gap_s <= 0.0 {
            return trace;
        }
        trace.push(Arrival { at_s, context: chooser.next(&mut random) });
    }
}

/// Calls at recorded times, given with the conversation that each belongs to. Conversations share the contexts in turn, by
/// when they first speak.
pub fn recorded(calls: &[(f64, u64)], contexts: usize) -> Vec<Arrival> {
    let mut calls: Vec<(f64, u64)> = calls.iter().copied().filter(|(at_s, _)| at_s.is_finite()).collect();
    calls.sort_by(|a, b| a.0.total_cmp(&b.0));
    let start = calls.first().map_or(0.0, |call| call.0);
    let mut numbers = std::collections::BTreeMap::new();
    let mut arrival = |(at_s, conversation): &(f64, u64)| {
        let next = numbers.len();
        let number = *numbers.entry(*conversation).or_insert(next);
        Arrival { at_s: at_s - start, context: number % contexts.max(1) }
    };
    calls.iter().map(&mut arrival).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_differ_and_times_have_their_mean() {
        for pattern in [Pattern::Random, Pattern::Markov, Pattern::Gaussian] {
            let trace = poisson(72.0 * 3600.0, 300.0, pattern, 8, 4);
            assert!((770..960).contains(&trace.len()), "{}", trace.len());
            assert!(trace.windows(2).all(|pair| pair[0].at_s <= pair[1].at_s));
            let mut counts = [0; 8];
            trace.iter().for_each(|arrival| counts[arrival.context] += 1);
            if pattern == Pattern::Gaussian {
                assert!(counts[3] + counts[4] > 4 * (counts[0] + counts[7]), "{counts:?}");
            }
            if pattern == Pattern::Random {
                assert!(counts.iter().all(|count| *count > 70), "{counts:?}");
            }
        }
    }

    #[test]
    fn recorded_calls_are_sorted_and_shared_out() {
        let trace = recorded(&[(50.0, 9), (10.0, 7), (f64::NAN, 1), (20.0, 8), (30.0, 7)], 2);
        let expected = [(0.0, 0), (10.0, 1), (20.0, 0), (40.0, 0)];
        assert_eq!(trace, expected.map(|(at_s, context)| Arrival { at_s, context }));
    }
}
