//! Which missing chunks to read and which to compute.
//!
//! Reading and computing run side by side, so a restore takes as long as the slower of the two: the plan minimises
//! max(T_recompute(tokens), T_read(bytes)) over how many chunks are computed, as LLMS does. The best split is often no
//! split: reads alone win wherever one chunk takes longer to compute than all take to read, and the plan says so.
//!
//! **Where this leaves the paper.** LLMS computes scattered chunks, so that layer l of the computation waits for layer l of
//! what is read. Here the earliest missing chunks are computed: a chunk needs only those before it, so computing never
//! waits for a read, reads come in whole chunks in the order of the disk, and early rows have the least to attend to.

use super::fit::LineFit;
use crate::CHUNK_TOKENS;
use crate::random::SplitMix;

/// What the planner knows of the device.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rates {
    /// Seconds to compute so many tokens.
    pub recompute: LineFit,
    /// Seconds to read and open so many bytes.
    pub read: LineFit,
    /// How many times longer than expected of either alone splits took: where reading and computing share cores, or a bus,
    /// they slow each other. At least 1.
    #[serde(default = "undisturbed")]
    pub split_factor: f64,
}

fn undisturbed() -> f64 {
    1.0
}

impl Rates {
    /// Rates whose splits are not known to disturb each other.
    pub fn new(recompute: LineFit, read: LineFit) -> Self {
        Self { recompute, read, split_factor: 1.0 }
    }

    /// Learn how long a split took that should have taken `planned_s`. The last splits count most.
    pub fn observe_split(&mut self, planned_s: f64, seconds: f64) {
        if planned_s > 0.0 && seconds.is_finite() {
            self.split_factor = (0.5 * self.split_factor + 0.5 * seconds / planned_s).clamp(1.0, 16.0);
        }
    }

    /// A restore was no split, for splits were slow before. They are not measured then, so that is forgotten little by little: now
    /// and then one is tried again.
    pub fn forgive_split(&mut self) {
        self.split_factor += FORGIVEN * (1.0 - self.split_factor);
    }
}

/// Share of what is held against splits that is forgotten with each restore that would have been one.
const FORGIVEN: f64 = 0.03;

/// A split must promise to take less than this share of what reading alone takes.
const WORTH: f64 = 0.9;

/// A chunk that is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingChunk {
    /// Index in its context.
    pub index: u32,
    /// Bytes on disk, or `None` where it can only be computed.
    pub read_bytes: Option<u64>,
}

/// What a plan came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Nothing was missing.
    Nothing,
    /// Reads alone are fastest.
    AllRead,
    /// Computing alone is fastest, or nothing can be read.
    AllRecompute,
    /// Both at once beat either.
    Split,
}

/// How to restore a context.
#[derive(Debug, Clone, PartialEq)]
pub struct RestorePlan {
    /// Chunks to compute, in order.
    pub recompute: Vec<u32>,
    /// Chunks to read, in order.
    pub read: Vec<u32>,
    /// Seconds that computing should take.
    pub recompute_s: f64,
    /// Seconds that reading should take.
    pub read_s: f64,
    /// Seconds until both are done.
    pub total_s: f64,
    /// Seconds that the better of reading all and computing all would take.
    pub best_single_s: f64,
    /// What it came to.
    pub choice: Choice,
    /// It would be a split if splits had not been slow before.
    pub given_up: bool,
}

/// Which missing chunks that could be read are computed instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// As many of the earliest as makes the restore fastest.
    #[default]
    Planned,
    /// None.
    AllRead,
    /// All.
    AllRecompute,
    /// Every other one.
    Alternating,
    /// Drawn by this seed.
    Random(u64),
}

impl Split {
    /// Whether chunk `index` is computed; `None` where that is to be planned.
    fn computes(self, index: u32) -> Option<bool> {
        match self {
            Self::Planned => None,
            Self::AllRead => Some(false),
            Self::AllRecompute => Some(true),
            Self::Alternating => Some(index % 2 == 1),
            Self::Random(seed) => Some(SplitMix::new(seed ^ u64::from(index)).chance(0.5)),
        }
    }
}

/// Plan a restore. Without `pipeline` chunks that can be read are read, and the rest is computed after that.
pub fn plan(missing: &[MissingChunk], rates: &Rates, pipeline: bool, split: Split) -> RestorePlan {
    let mut readable: Vec<(u32, u64)> = missing.iter().filter_map(|c| Some((c.index, c.read_bytes?))).collect();
    readable.sort_unstable();
    let forced = missing.len() - readable.len();
    let all_bytes: u64 = readable.iter().map(|(_, bytes)| bytes).sum();
    let recompute_s = |chunks: usize| rates.recompute.predict((chunks * CHUNK_TOKENS) as f64);
    let read_s = |bytes: u64| rates.read.predict(bytes as f64);
    let joined = |a: f64, b: f64| if pipeline { a.max(b) } else { a + b };

    let all_read_s = joined(recompute_s(forced), read_s(all_bytes));
    let all_recompute_s = recompute_s(missing.len());
    // How many of the readable chunks are computed, where splits take so many times as long.
    let fastest = |split_factor: f64| {
        let (mut computed, mut best, mut bytes) = (0, WORTH * all_read_s, all_bytes);
        for (k, (_, chunk_bytes)) in (1..).zip(readable.iter().filter(|_| pipeline)) {
            bytes -= chunk_bytes;
            let disturbed = if bytes > 0 { split_factor } else { 1.0 };
            let candidate = disturbed * joined(recompute_s(forced + k), read_s(bytes));
            if candidate < best {
                (computed, best) = (k, candidate);
            }
        }
        computed
    };
    let computed = fastest(rates.split_factor);
    let is_computed = |nth: usize, index: u32| split.computes(index).unwrap_or(nth < computed);
    let mut recompute: Vec<u32> =
        missing.iter().filter(|chunk| chunk.read_bytes.is_none()).map(|chunk| chunk.index).collect();
    let (mut read, mut bytes_left) = (Vec::new(), 0);
    for (nth, (index, bytes)) in readable.iter().enumerate() {
        if is_computed(nth, *index) {
            recompute.push(*index);
        } else {
            read.push(*index);
            bytes_left += bytes;
        }
    }
    recompute.sort_unstable();
    let choice = match (recompute.is_empty(), read.is_empty()) {
        (true, true) => Choice::Nothing,
        (true, false) => Choice::AllRead,
        (false, true) => Choice::AllRecompute,
        (false, false) => Choice::Split,
    };
    let could_split = split == Split::Planned && (1..readable.len()).contains(&fastest(1.0));
    let (recompute_s, read_s) = (recompute_s(recompute.len()), read_s(bytes_left));
    RestorePlan {
        recompute_s,
        read_s,
        recompute,
        read,
        total_s: joined(recompute_s, read_s),
        best_single_s: all_read_s.min(all_recompute_s),
        choice,
        given_up: could_split && choice != Choice::Split,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(tokens_per_s: f64, bytes_per_s: f64) -> Rates {
        Rates::new(LineFit::new(0.0, 1.0 / tokens_per_s), LineFit::new(0.0001, 1.0 / bytes_per_s))
    }

    fn missing(n: u32, bytes: u64) -> Vec<MissingChunk> {
        (0..n).map(|index| MissingChunk { index, read_bytes: Some(bytes) }).collect()
    }

    #[test]
    fn a_split_beats_both_where_both_are_alike() {
        let plan = plan(&missing(128, 1_000_000), &rates(1600.0, 100e6), true, Split::Planned);
        assert_eq!(plan.choice, Choice::Split);
        assert!(plan.total_s < 0.55 * plan.best_single_s, "{plan:?}");
        assert_eq!(plan.recompute.len() + plan.read.len(), 128);
    }

    #[test]
    fn it_knows_when_a_part_cannot_help() {
        let reads = plan(&missing(128, 100_000), &rates(100.0, 2e9), true, Split::Planned);
        assert_eq!((reads.choice, reads.recompute.len()), (Choice::AllRead, 0));
        assert_eq!(reads.total_s, reads.best_single_s);
        let computes = plan(&missing(4, 10_000_000), &rates(10_000.0, 1e6), true, Split::Planned);
        assert_eq!(computes.choice, Choice::AllRecompute);
        assert_eq!(plan(&[], &rates(1.0, 1.0), true, Split::Planned).choice, Choice::Nothing);
        let mut lost = missing(3, 1000);
        lost[1].read_bytes = None;
        let plan = plan(&lost, &rates(100.0, 2e9), true, Split::Planned);
        assert_eq!((plan.recompute, plan.read), (vec![1], vec![0, 2]));
    }

    #[test]
    fn no_other_number_of_computed_chunks_is_faster() {
        let mut random = SplitMix::new(9);
        for _ in 0..200 {
            let missing: Vec<_> = (0..1 + random.below(60) as u32)
                .map(|index| MissingChunk {
                    index,
                    read_bytes: random.chance(0.9).then(|| 10_000 * (1 + random.below(8))),
                })
                .collect();
            let rates = rates(100.0 * (1.0 + 50.0 * random.unit()), 1e6 * (1.0 + 99.0 * random.unit()));
            let plan = plan(&missing, &rates, true, Split::Planned);
            let sizes: Vec<u64> = missing.iter().filter_map(|chunk| chunk.read_bytes).collect();
            let forced = missing.len() - sizes.len();
            for computed in 0..=sizes.len() {
                let bytes: u64 = sizes[computed..].iter().sum();
                let tokens = (forced + computed) * CHUNK_TOKENS;
                let other = rates.recompute.predict(tokens as f64).max(rates.read.predict(bytes as f64));
                assert!(WORTH * plan.total_s <= other + 1e-12);
            }
            assert!((plan.total_s - plan.recompute_s.max(plan.read_s)).abs() < 1e-12);
        }
    }

    #[test]
    fn splits_that_disturb_each_other_are_given_up() {
        let mut rates = rates(1600.0, 100e6);
        let splits =
            |rates: &Rates| plan(&missing(128, 1_000_000), rates, true, Split::Planned).choice == Choice::Split;
        assert!(splits(&rates));
        for _ in 0..8 {
            rates.observe_split(0.6, 1.4);
        }
        assert!(!splits(&rates), "{}", rates.split_factor);
        rates.observe_split(0.6, 0.1);
        assert!(rates.split_factor >= 1.0 && splits(&Rates { split_factor: 1.0, ..rates }));
    }

    #[test]
    fn splits_that_were_given_up_are_tried_again_now_and_then() {
        let mut rates = rates(1600.0, 100e6);
        // Splits take 2.4 times as long, until the 200th restore; after that they disturb nothing.
        let mut tried = Vec::new();
        for restore in 0..400 {
            let plan = plan(&missing(128, 1_000_000), &rates, true, Split::Planned);
            assert_eq!(plan.given_up, plan.choice != Choice::Split);
            if plan.given_up {
                rates.forgive_split();
            } else {
                tried.push(restore);
                rates.observe_split(plan.total_s, plan.total_s * if restore < 200 { 2.4 } else { 1.0 });
            }
        }
        let slow = tried.iter().filter(|restore| **restore < 200).count();
        assert!((5..40).contains(&slow), "{tried:?}");
        assert!(tried.iter().filter(|restore| **restore >= 240).count() == 160, "{tried:?}");
        assert!(!plan(&missing(128, 100_000), &rates, true, Split::AllRead).given_up, "it was asked for");
    }

    #[test]
    fn the_earliest_are_computed_and_splits_can_be_forced() {
        let plan_of = |split| plan(&missing(40, 1_000_000), &rates(1600.0, 100e6), true, split);
        let planned = plan_of(Split::Planned);
        assert_eq!(planned.recompute, (0..planned.recompute.len() as u32).collect::<Vec<_>>());
        assert_eq!(plan_of(Split::AllRead).recompute.len(), 0);
        assert_eq!(plan_of(Split::AllRecompute).recompute.len(), 40);
        assert_eq!(plan_of(Split::Alternating).recompute[..3], [1, 3, 5]);
        let (one, other) = (plan_of(Split::Random(1)), plan_of(Split::Random(2)));
        assert!(one.recompute != other.recompute && one.recompute.len() > 5 && one.read.len() > 5);
        assert_eq!(one, plan_of(Split::Random(1)));
    }
}
