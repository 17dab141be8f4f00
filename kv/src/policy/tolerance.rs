//! Which chunk gets how many bits.
//!
//! Let d(i) be chunk i's density: its share of the attention of all later rows, averaged over rows, heads and layers. Let
//! e(w) be the error that width w was measured to cause: the relative error of attention's output when all chunks have
//! that width, 0 at 16 bits. Chosen are the widths w(i) that minimise
//!
//! ```text
//! Σ d(i) · e(w(i))    where    Σ bits(w(i)) ≤ n · average bits
//! ```
//!
//! **Where this leaves the paper.** LLMS (arXiv 2403.11805) minimises Σ d(i) / ratio(w(i))-like terms under a global ratio,
//! over {8, 4, 2} bits. As printed its objective is convex in the one variable that is left after the constraint, so that
//! its optimum lies at a corner: all 4 bits, or a third at 8 and two thirds at 2, whatever the densities. Measured errors
//! in the objective say what a bit is worth, widths of 16 bits are allowed, and the constraint holds for each context.
//!
//! The problem is a knapsack with a choice of widths for each item. Every chunk has the same curve of errors scaled by its
//! density, so steps along the lower convex hull of that curve, best gain per bit first, solve the relaxed problem; the
//! last step that does not fit is skipped and later ones are tried. The result is off the optimum by less than one
//! chunk's single step.

use super::{WIDTHS, nominal_bits};
use crate::Width;

/// Measured error of each width, in the order of [`WIDTHS`].
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct WidthErrors(pub [f64; 4]);

impl Default for WidthErrors {
    /// How much narrower keys and values raised the perplexity of SmolLM2-135M and Qwen2.5-Coder-0.5B, the worst of two texts
    /// each, after the transform and without centres (`benches/kv-quality`): 0.1 % at 8 bits, 2.5 % at 4 bits, and more
    /// than double at 2 bits. So a chunk goes to 2 bits only where another one with some 150 times its density gains by it.
    fn default() -> Self {
        Self([0.0, 0.001, 0.025, 1.9])
    }
}

/// What is known of a chunk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkTolerance {
    /// Its density.
    pub density: f64,
    /// The width it has. It never gets more: bits that are gone come back only by recomputing.
    pub width: Width,
}

/// Widths for a context's chunks such that their average is at most `average_bits`, where that can be: 2 bits are the least.
pub fn choose_widths(chunks: &[ChunkTolerance], errors: &WidthErrors, average_bits: f64) -> Vec<Width> {
    let bits = |rank: usize| f64::from(nominal_bits(WIDTHS[rank]));
    let last = WIDTHS.len() - 1;
    let mut ranks = vec![last; chunks.len()];
    let mut left = chunks.len() as f64 * (average_bits - bits(last));
    // Steps from few bits to many: (gain per bit, chunk, from, to).
    let mut steps = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        let most = WIDTHS.iter().position(|width| *width == chunk.width).unwrap_or(0);
        let density = if chunk.density.is_finite() { chunk.density.max(0.0) } else { 0.0 };
        let mut from = last;
        while from > most {
            // The next corner of the hull: the steepest way up.
            let slope = |to: usize| (errors.0[from] - errors.0[to]) / (bits(to) - bits(from));
            let to = (most..from).max_by(|a, b| slope(*a).total_cmp(&slope(*b)).then(a.cmp(b)));
            let Some(to) = to.filter(|to| slope(*to) > 0.0) else { break };
            steps.push((density * slope(to), i, from, to));
            from = to;
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.2.cmp(&a.2)).then(a.1.cmp(&b.1)));
    for (gain, i, from, to) in steps {
        let cost = bits(to) - bits(from);
        // A chunk whose earlier step did not fit takes no later one.
        if gain > 0.0 && ranks[i] == from && cost <= left {
            ranks[i] = to;
            left -= cost;
        }
    }
    ranks.into_iter().map(|rank| WIDTHS[rank]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix;

    fn cost(chunks: &[ChunkTolerance], widths: &[Width], errors: &WidthErrors) -> f64 {
        let error = |width: Width| errors.0[WIDTHS.iter().position(|w| *w == width).unwrap()];
        chunks.iter().zip(widths).map(|(chunk, width)| chunk.density * error(*width)).sum()
    }

    fn average(widths: &[Width]) -> f64 {
        widths.iter().map(|width| f64::from(nominal_bits(*width))).sum::<f64>() / widths.len() as f64
    }

    fn chunks(random: &mut SplitMix, n: usize) -> Vec<ChunkTolerance> {
        (0..n).map(|_| ChunkTolerance { density: (1.5 * random.normal()).exp(), width: Width::W16 }).collect()
    }

    #[test]
    fn within_one_step_of_the_best_of_all_choices() {
        let mut random = SplitMix::new(5);
        let errors = WidthErrors([0.0, 0.004, 0.06, 0.4]);
        for round in 0..60 {
            let chunks = chunks(&mut random, 6);
            let average_bits = [3.0, 4.0, 6.0][round % 3];
            let chosen = choose_widths(&chunks, &errors, average_bits);
            assert!(average(&chosen) <= average_bits);
            let mut best = f64::INFINITY;
            for code in 0..4_usize.pow(6) {
                let widths: Vec<Width> = (0..6).map(|i| WIDTHS[code / 4_usize.pow(i) % 4]).collect();
                if average(&widths) <= average_bits {
                    best = best.min(cost(&chunks, &widths, &errors));
                }
            }
            let step = chunks.iter().map(|chunk| chunk.density * 0.4).fold(0.0, f64::max);
            let ours = cost(&chunks, &chosen, &errors);
            assert!(ours >= best - 1e-12 && ours - best < step, "{ours} {best}");
        }
    }

    #[test]
    fn it_beats_one_width_for_all_and_gives_dense_chunks_more() {
        let mut random = SplitMix::new(6);
        let chunks = chunks(&mut random, 128);
        let errors = WidthErrors([0.0, 0.004, 0.06, 0.4]);
        let chosen = choose_widths(&chunks, &errors, 4.0);
        let uniform = cost(&chunks, &vec![Width::W4; 128], &errors);
        let ours = cost(&chunks, &chosen, &errors);
        assert!(average(&chosen) <= 4.0 && average(&chosen) > 3.9);
        assert!(ours < 0.8 * uniform, "{ours} {uniform}");
        let mut by_density: Vec<_> = chunks.iter().zip(&chosen).collect();
        by_density.sort_by(|a, b| a.0.density.total_cmp(&b.0.density));
        let bits: Vec<u32> = by_density.iter().map(|(_, width)| nominal_bits(**width)).collect();
        assert!(bits[..32].iter().sum::<u32>() < bits[96..].iter().sum::<u32>());
    }

    #[test]
    fn bits_that_are_gone_do_not_come_back_and_odd_densities_do_no_harm() {
        let chunk = |density, width| ChunkTolerance { density, width };
        let given =
            [chunk(9.0, Width::W4), chunk(1.0, Width::W2), chunk(f64::NAN, Width::W16), chunk(-1.0, Width::W16)];
        let chosen = choose_widths(&given, &WidthErrors::default(), 16.0);
        assert_eq!(chosen, [Width::W4, Width::W2, Width::W2, Width::W2]);
        assert_eq!(choose_widths(&[], &WidthErrors::default(), 4.0), []);
        assert_eq!(choose_widths(&given[..1], &WidthErrors::default(), 1.0), [Width::W2]);
    }
}
