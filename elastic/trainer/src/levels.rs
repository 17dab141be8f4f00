//! The level table: what each layer keeps at each level.
//!
//! A level's percent is the share of the weights of all layers but the anchors that it keeps. Which layers give them up,
//! and whether as groups or as neurons, is searched for. Candidates are even cuts, cuts that keep what is worth most a
//! weight by the units' scores (over all layers, or with each layer's scores normed to some degree), the next higher
//! level's table cut down, and tables that leave out halves of layers ([`crate::halves`]) for all or a part of what must go.
//! From the best, weights move between layers and between attention and the MLP as long as the divergence from the whole
//! model falls (in the manner of EvoPress, arXiv 2410.14649). It is measured on some hundred tokens of training text against
//! the whole model's own predictions, which differs far less from text to text than a perplexity does.
//!
//! Low levels are for speed, and leave out whole layers first, and attention of others ([`Without`], [`Search::leave_out`]); what is left
//! is searched for as above.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result};
use candle_core::Tensor;
use concertina_elastic::{LayerScores, LayerShape, LayerUnits, SubModel};

use crate::halves::{self, Half, LeftOut};
use crate::net::{Net, Pass, Site};
use crate::ops::head::{Mix, losses};
use crate::random::Random;
use crate::teacher::Lesson;

/// The levels of a package, in percent.
pub const LEVELS: [u32; 9] = [20, 30, 40, 50, 60, 70, 80, 90, 100];

/// Weights of a group and of a neuron.
#[derive(Debug, Clone, Copy)]
pub struct UnitWeights {
    /// Rows of Q, K and V and columns of O.
    pub group: usize,
    /// Rows of gate and up and a column of `down`.
    pub neuron: usize,
}

impl UnitWeights {
    /// Of a model.
    pub fn of(net: &Net) -> Self {
        let spec = &net.spec;
        let heads = spec.n_heads / spec.n_groups;
        Self { group: (2 * heads + 2) * spec.head_dim * spec.dim, neuron: 3 * spec.dim }
    }

    /// Weights of a part of a layer.
    pub fn layer(&self, units: LayerUnits) -> usize {
        units.groups * self.group + units.neurons * self.neuron
    }

    /// Weights of a part of all layers.
    pub fn all(&self, units: &[LayerUnits]) -> usize {
        units.iter().map(|u| self.layer(*u)).sum()
    }
}

/// Searches for the table of a model.
pub struct Search<'a> {
    net: &'a Net,
    lessons: &'a [Lesson],
    /// Layers that are cut.
    cut: Vec<usize>,
    /// Layers that are left out whole.
    out: Vec<usize>,
    /// Layers of those that are cut whose attention is left out.
    without_attention: Vec<usize>,
    /// Weights of the layers that may be cut or left out, whole.
    all: usize,
    weights: UnitWeights,
    /// Scores of units in stored order, by layer.
    scores: Vec<LayerScores>,
    random: Random,
}

/// How far each layer's scores are normed by their sum: not at all, half-way, wholly.
const NORMING: [f64; 3] = [0.0, 0.5, 1.0];
/// What a group's score is worth against neurons'.
const GROUP_WORTH: [f64; 2] = [1.0, 2.0];
/// Shares of the halves that could go for a level which are left out; units of the others give up the rest.
const LEFT_OUT: [f64; 4] = [1.0, 0.75, 0.5, 0.25];

/// What a level leaves out before units are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Without {
    /// Whole layers, those of least influence.
    pub layers: usize,
    /// Of the others, attention of so many.
    pub attention: usize,
}

/// Levels at which whole layers, and attention of others, are left out first, as shares of the layers that may be cut. There dispatches,
/// which narrower matrices do not save, are a good part of the time.
const WITHOUT: [(u32, f64, f64); 5] =
    [(20, 0.5, 0.25), (30, 0.375, 0.2), (40, 0.375, 0.17), (50, 0.375, 0.0), (60, 0.375, 0.0)];

impl Without {
    /// What a level leaves out of the `cut` layers that may be cut.
    pub fn of(level: u32, cut: usize) -> Self {
        let count = |share: f64| (cut as f64 * share).round() as usize;
        let found = WITHOUT.iter().find(|(of, ..)| *of == level);
        found.map_or_else(Self::default, |(_, layers, attention)| Self {
            layers: count(*layers),
            attention: count(*attention),
        })
    }
}

impl fmt::Display for Without {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attention {
            0 => write!(out, "{}", self.layers),
            attention => write!(out, "{}+{attention}", self.layers),
        }
    }
}

impl FromStr for Without {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (layers, attention) = text.split_once('+').unwrap_or((text, "0"));
        let number = |text: &str| text.parse().with_context(|| format!("{text:?} is no number of layers"));
        Ok(Self { layers: number(layers)?, attention: number(attention)? })
    }
}

/// Tables whose residual streams are kept while halves are left out.
const KNOWN: usize = 3;

/// A candidate with what it was measured by.
#[derive(Clone)]
struct Candidate {
    units: Vec<LayerUnits>,
    loss: f64,
}

impl<'a> Search<'a> {
    /// For a permuted model whose layers `anchors` are never cut; `scores` are of the units before they were ordered: none, if they
    /// are not known.
    pub fn new(net: &'a Net, lessons: &'a [Lesson], anchors: &[usize], scores: &[LayerScores], seed: u64) -> Self {
        let cut: Vec<usize> = (0..net.layers.len()).filter(|l| !anchors.contains(l)).collect();
        let (weights, full) = (UnitWeights::of(net), net.full());
        let all = cut.iter().map(|&l| weights.layer(full[l])).sum();
        let falling = |values: &[f64]| {
            let mut values = values.to_vec();
            values.sort_by(|a, b| b.total_cmp(a));
            values
        };
        let sorted = |s: &LayerScores| LayerScores {
            groups: falling(&s.groups),
            heads: Vec::new(),
            neurons: falling(&s.neurons),
        };
        let scores = scores.iter().map(sorted).collect();
        Self {
            net,
            lessons,
            cut,
            out: Vec::new(),
            without_attention: Vec::new(),
            all,
            weights,
            scores,
            random: Random::new(seed),
        }
    }

    /// Leave out, at all levels, of the layers that may be cut those that have the least `influence` on the stream, whole (ShortGPT,
    /// arXiv 2403.03853), and then attention of others, one after the other, always where that moves the predictions least: a layer
    /// without it has two kernels of five, and no keys to read.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn leave_out(&mut self, without: Without, influence: &[f64]) -> Result<()> {
        let count = without.layers;
        self.cut.sort_by(|a, b| influence[*a].total_cmp(&influence[*b]));
        let kept = self.cut.split_off(count.min(self.cut.len()));
        self.out.extend(std::mem::replace(&mut self.cut, kept));
        self.cut.sort_unstable();
        let halves: Vec<_> = self.cut.iter().map(|&l| (l, Half::Attention)).collect();
        let count = without.attention.min(halves.len());
        if count > 0 {
            let found = self.left_out(halves, |_, out| out == count, &mut |_, _| {})?;
            self.without_attention = found.iter().map(|out| out.layer).collect();
        }
        Ok(())
    }

    /// All units of all layers but what is left out.
    fn whole(&self) -> Vec<LayerUnits> {
        let mut units = self.net.full();
        self.out.iter().for_each(|&l| units[l] = LayerUnits { groups: 0, neurons: 0 });
        self.quiet(&mut units);
        units
    }

    /// Take out attention of the layers that are to be without it.
    fn quiet(&self, units: &mut [LayerUnits]) {
        self.without_attention.iter().for_each(|&l| Half::Attention.take_from(&mut units[l]));
    }

    /// Halves of layers in the order in which they are best left out, down to `level`. `progress` hears of weights left in
    /// percent, and of the divergence.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn halves(&self, level: u32, progress: &mut dyn FnMut(usize, f64)) -> Result<Vec<LeftOut>> {
        let halves = self.cut.iter().flat_map(|&l| [(l, Half::Attention), (l, Half::Mlp)]);
        let budget = self.all * level as usize / 100;
        let mut progress = |units: &[LayerUnits], loss: f64| progress(self.kept(units) * 100 / self.all, loss);
        self.left_out(halves, |units, _| self.kept(units) <= budget, &mut progress)
    }

    /// [`halves::order`], measured on the lessons.
    fn left_out(
        &self,
        halves: impl IntoIterator<Item = (usize, Half)>,
        enough: impl Fn(&[LayerUnits], usize) -> bool,
        progress: &mut dyn FnMut(&[LayerUnits], f64),
    ) -> Result<Vec<LeftOut>> {
        // The last few tables: layers before the first that differs from one of them need not be run again.
        let mut known: VecDeque<(Vec<LayerUnits>, Vec<Vec<Tensor>>)> = VecDeque::new();
        let mut measure = |units: &[LayerUnits]| {
            let shared = |of: &[LayerUnits]| (0..units.len()).find(|&l| units[l] != of[l]).unwrap_or(0);
            let nearest = known.iter().map(|(of, residuals)| (shared(of), residuals)).max_by_key(|(first, _)| *first);
            let (loss, seen) = self.measure(units, nearest, f64::INFINITY)?;
            known.push_back((units.to_vec(), seen));
            if known.len() > KNOWN {
                known.pop_front();
            }
            Ok(loss)
        };
        halves::order(self.weights, self.whole(), halves, enough, &mut measure, progress)
    }

    /// Find what `level` keeps, in `steps` measurements. `start` is a guess, such as the next higher level's table;
    /// `halves` are what [`Search::halves`] found.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn level(
        &mut self,
        level: u32,
        start: Option<&SubModel>,
        halves: &[LeftOut],
        steps: usize,
        progress: &mut dyn FnMut(usize, usize, f64),
    ) -> Result<SubModel> {
        let (budget, whole) = (self.all * level as usize / 100, self.whole());
        if self.kept(&whole) <= budget {
            return Ok(SubModel { level, layers: whole });
        }
        let mut starts: Vec<Vec<LayerUnits>> = Vec::new();
        let most = self.cut.iter().map(|&l| self.net.shapes[l].groups).max().unwrap_or(1);
        starts.extend((1..=most).filter_map(|groups| self.even(groups, budget)));
        for norming in NORMING {
            starts.extend(GROUP_WORTH.iter().filter_map(|worth| self.by_scores(norming, *worth, budget, &[])));
        }
        if let Some(start) = start {
            starts.push(self.fitted(start.layers.clone(), budget));
        }
        starts.extend(self.with_halves_left_out(halves, budget));
        starts.dedup();
        let mut best: Option<Candidate> = None;
        let mut residuals = Vec::new();
        for (i, units) in starts.into_iter().enumerate() {
            let bound = best.as_ref().map_or(f64::INFINITY, |best| best.loss);
            let (loss, seen) = self.measure(&units, None, bound)?;
            if best.as_ref().is_none_or(|best| loss < best.loss) {
                (best, residuals) = (Some(Candidate { units, loss }), seen);
            }
            log::debug!("level {level}, start {i}: {loss:.4}");
        }
        let mut best = best.context("no cut of this model fits the level")?;
        for step in 0..steps {
            let units = self.mutated(&best.units, budget, step, steps);
            let Some(first) = (0..units.len()).find(|&l| units[l] != best.units[l]) else { continue };
            let (loss, seen) = self.measure(&units, Some((first, &residuals)), best.loss)?;
            if loss < best.loss {
                best = Candidate { units, loss };
                residuals = seen;
            }
            progress(step + 1, steps, best.loss);
        }
        Ok(SubModel { level, layers: best.units })
    }

    /// The same number of groups and neurons in every layer that is cut.
    fn even(&self, groups: usize, budget: usize) -> Option<Vec<LayerUnits>> {
        let mut units = self.whole();
        for &l in &self.cut {
            let shape = self.net.shapes[l];
            let groups = groups.next_multiple_of(shape.group_step).min(shape.groups);
            units[l] = LayerUnits { groups, neurons: shape.neuron_step.min(shape.neurons) };
        }
        self.quiet(&mut units);
        (self.kept(&units) <= budget).then(|| self.filled(units, budget))
    }

    /// Tables without some of the halves, the rest of the cut spread evenly or by scores.
    fn with_halves_left_out(&self, halves: &[LeftOut], budget: usize) -> Vec<Vec<LayerUnits>> {
        let without = |count: usize| {
            let mut units = self.whole();
            halves[..count].iter().for_each(|out| out.half.take_from(&mut units[out.layer]));
            units
        };
        let most = (0..=halves.len()).rev().find(|&n| self.kept(&without(n)) >= budget).unwrap_or(0);
        let mut counts: Vec<usize> = LEFT_OUT.iter().map(|share| (most as f64 * share).round() as usize).collect();
        // One more may fit better than a part of it: what it frees too much goes to the others.
        counts.extend((most < halves.len()).then_some(most + 1));
        counts.retain(|count| *count > 0);
        counts.dedup();
        let tables = counts.into_iter().flat_map(|count| {
            let even = self.fitted(without(count), budget);
            [Some(even), self.by_scores(0.5, 1.0, budget, &halves[..count])]
        });
        tables.flatten().collect()
    }

    /// What is worth most a weight, until the budget is used; nothing of the halves that are left out.
    fn by_scores(&self, norming: f64, group_worth: f64, budget: usize, out: &[LeftOut]) -> Option<Vec<LayerUnits>> {
        if self.scores.is_empty() {
            return None;
        }
        let is_out = |layer: usize, half: Half| {
            out.iter().any(|out| (out.layer, out.half) == (layer, half))
                || (half == Half::Attention && self.without_attention.contains(&layer))
        };
        let mut units = self.whole();
        for &l in &self.cut {
            let shape = self.net.shapes[l];
            units[l] = LayerUnits { groups: shape.group_step, neurons: shape.neuron_step.min(shape.neurons) };
        }
        self.quiet(&mut units);
        out.iter().for_each(|out| out.half.take_from(&mut units[out.layer]));
        let total = |l: usize| self.scores[l].groups.iter().chain(&self.scores[l].neurons).sum::<f64>().max(1e-30);
        let worth = |values: &[f64], from: usize, to: usize, l: usize| {
            values.get(from..to).map_or(0.0, |v| v.iter().sum::<f64>()) / total(l).powf(norming)
        };
        let mut room = budget.checked_sub(self.kept(&units))?;
        loop {
            let mut best: Option<(f64, usize, LayerUnits, usize)> = None;
            for &l in &self.cut {
                let (shape, at) = (self.net.shapes[l], units[l]);
                let grown = |at: usize, step: usize, all: usize, half| match is_out(l, half) {
                    true => at,
                    false => (at + step).min(all),
                };
                let groups = grown(at.groups, shape.group_step, shape.groups, Half::Attention);
                let neurons = grown(at.neurons, shape.neuron_step, shape.neurons, Half::Mlp);
                for (next, value) in [
                    (LayerUnits { groups, ..at }, group_worth * worth(&self.scores[l].groups, at.groups, groups, l)),
                    (LayerUnits { neurons, ..at }, worth(&self.scores[l].neurons, at.neurons, neurons, l)),
                ] {
                    let cost = self.weights.layer(next) - self.weights.layer(at);
                    let density = value / cost.max(1) as f64;
                    if cost > 0 && cost <= room && best.as_ref().is_none_or(|best| density > best.0) {
                        best = Some((density, l, next, cost));
                    }
                }
            }
            let Some((_, l, next, cost)) = best else { return Some(units) };
            units[l] = next;
            room -= cost;
        }
    }

    /// Weights kept of the layers that are cut.
    fn kept(&self, units: &[LayerUnits]) -> usize {
        self.cut.iter().map(|&l| self.weights.layer(units[l])).sum()
    }

    /// Neurons added in turns, to the layer with the least, until the budget is used.
    fn filled(&self, mut units: Vec<LayerUnits>, budget: usize) -> Vec<LayerUnits> {
        let mut room = budget.saturating_sub(self.kept(&units));
        while let Some(&l) = self
            .cut
            .iter()
            .filter(|&&l| units[l].neurons > 0 && self.grow(units[l], l).is_some_and(|n| n <= room))
            .min_by_key(|&&l| units[l].neurons)
        {
            room -= self.grow(units[l], l).unwrap_or(0);
            units[l].neurons = (units[l].neurons + self.net.shapes[l].neuron_step).min(self.net.shapes[l].neurons);
        }
        units
    }

    /// Weights that one more step of neurons takes, if there is one.
    fn grow(&self, units: LayerUnits, layer: usize) -> Option<usize> {
        let shape = self.net.shapes[layer];
        let more = (units.neurons + shape.neuron_step).min(shape.neurons);
        (more > units.neurons).then(|| (more - units.neurons) * self.weights.neuron)
    }

    /// A table cut down to the budget: neurons go where most are left, then groups.
    fn fitted(&self, mut units: Vec<LayerUnits>, budget: usize) -> Vec<LayerUnits> {
        while self.kept(&units) > budget {
            let shapes = &self.net.shapes;
            let by_neurons = self.cut.iter().filter(|&&l| units[l].neurons > shapes[l].neuron_step);
            if let Some(&l) = by_neurons.max_by_key(|&&l| units[l].neurons * 8 + units[l].groups) {
                units[l].neurons = shrink(units[l].neurons, shapes[l].neuron_step);
            } else if let Some(&l) = self.cut.iter().find(|&&l| units[l].groups > shapes[l].group_step) {
                units[l].groups = shrink(units[l].groups, shapes[l].group_step);
            } else {
                break;
            }
        }
        self.filled(units, budget)
    }

    /// A neighbour: some weights moved, first in large pieces, later in small ones.
    fn mutated(&mut self, units: &[LayerUnits], budget: usize, step: usize, steps: usize) -> Vec<LayerUnits> {
        let mut units = units.to_vec();
        let moves = if step * 2 < steps { 1 + self.random.below(3) } else { 1 };
        for _ in 0..moves {
            let from = self.cut[self.random.below(self.cut.len())];
            let to = self.cut[self.random.below(self.cut.len())];
            let shape = self.net.shapes[to];
            let (largest, all) = (if step * 2 < steps { 8 } else { 4 }, shape.neurons);
            match self.random.below(4) {
                // A group changes hands, or turns into neurons.
                0 => {
                    let LayerShape { groups, group_step, .. } = shape;
                    if self.random.below(2) == 0 {
                        units[to].groups = (units[to].groups + group_step).min(groups);
                    } else if units[to].groups > group_step {
                        units[to].groups = shrink(units[to].groups, group_step);
                    }
                    if self.random.below(2) == 0 && from != to && units[from].groups > self.net.shapes[from].group_step
                    {
                        units[from].groups = shrink(units[from].groups, self.net.shapes[from].group_step);
                    }
                }
                _ => {
                    let piece = (1 + self.random.below(largest)) * shape.neuron_step;
                    let step = self.net.shapes[from].neuron_step;
                    let piece = piece.min(units[from].neurons.saturating_sub(step)).min(all - units[to].neurons);
                    let piece = piece / step * step;
                    units[from].neurons -= piece;
                    units[to].neurons += piece;
                }
            }
        }
        self.quiet(&mut units);
        // Back to the budget, at random places.
        while self.kept(&units) > budget {
            let wide: Vec<usize> =
                self.cut.iter().copied().filter(|&l| units[l].neurons > self.net.shapes[l].neuron_step).collect();
            let Some(&l) = wide.get(self.random.below(wide.len().max(1))) else { break };
            units[l].neurons = shrink(units[l].neurons, self.net.shapes[l].neuron_step);
        }
        loop {
            let room = budget.saturating_sub(self.kept(&units));
            let grows = |l: &usize| units[*l].neurons > 0 && self.grow(units[*l], *l).is_some_and(|n| n <= room);
            let open: Vec<usize> = self.cut.iter().copied().filter(grows).collect();
            let Some(&l) = open.get(self.random.below(open.len().max(1))) else { break };
            units[l].neurons = (units[l].neurons + self.net.shapes[l].neuron_step).min(self.net.shapes[l].neurons);
        }
        units
    }

    /// Mean divergence from the whole model, and the residual stream before every layer of every lesson. Where the
    /// layers before some layer are those of a table whose residuals are known, it starts from there; it gives up, with a
    /// loss that is too high, once it cannot come below `bound`.
    fn measure(
        &self,
        units: &[LayerUnits],
        known: Option<(usize, &Vec<Vec<Tensor>>)>,
        bound: f64,
    ) -> Result<(f64, Vec<Vec<Tensor>>)> {
        let pass = Pass::new(self.net, units, None)?;
        let rows: usize = self.lessons.iter().map(|lesson| lesson.targets.len()).sum();
        let (mut sum, mut all) = (0f64, Vec::new());
        for (i, lesson) in self.lessons.iter().enumerate() {
            let mut seen: Vec<Tensor> = Vec::new();
            let (first, start) = match known {
                Some((first, residuals)) => {
                    seen.extend_from_slice(&residuals[i][..first]);
                    (first, residuals[i][first].clone())
                }
                None => (0, pass.embed(&lesson.batch)?),
            };
            let hidden = pass.from_layer(first, start, lesson.batch.tokens, &mut |_, site, x| {
                if site == Site::Residual {
                    seen.push(x.clone());
                }
                Ok(None)
            })?;
            let own = losses(&hidden, &self.net.head, &lesson.targets, Mix { kl: 1.0, ce: 0.0 })?;
            sum += own.iter().map(|l| f64::from(*l)).sum::<f64>();
            all.push(seen);
            if sum / rows as f64 >= bound {
                break;
            }
        }
        Ok((sum / rows as f64, all))
    }
}

/// One step less, where all of a layer need not be whole steps.
fn shrink(n: usize, step: usize) -> usize {
    ((n - 1) / step * step).max(step)
}
