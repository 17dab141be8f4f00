//! The order of units: which original unit lies at each place of the stored model.

use serde::{Deserialize, Serialize};

/// The order of one layer's units, most important first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerOrder {
    /// Original KV group at each place.
    pub groups: Vec<u32>,
    /// Original query head at each place. The heads of a group stay together: they are ordered inside it.
    pub heads: Vec<u32>,
    /// Original neuron at each place.
    pub neurons: Vec<u32>,
}

/// Importance of one layer's units, by original index.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LayerScores {
    /// Of KV groups.
    pub groups: Vec<f64>,
    /// Of query heads.
    pub heads: Vec<f64>,
    /// Of neurons.
    pub neurons: Vec<f64>,
}

impl LayerOrder {
    /// As stored in the original model.
    pub fn identity(groups: usize, heads: usize, neurons: usize) -> Self {
        let count = |n: usize| (0..n as u32).collect();
        Self { groups: count(groups), heads: count(heads), neurons: count(neurons) }
    }

    /// By falling importance; equal ones keep their order.
    pub fn by_importance(scores: &LayerScores) -> Self {
        let groups = falling(&scores.groups);
        let per_group = scores.heads.len() / scores.groups.len().max(1);
        let mut heads = Vec::with_capacity(scores.heads.len());
        for &group in &groups {
            let first = group as usize * per_group;
            let own = falling(&scores.heads[first..first + per_group]);
            heads.extend(own.into_iter().map(|head| head + first as u32));
        }
        Self { groups, heads, neurons: falling(&scores.neurons) }
    }

    /// What is wrong with it, if anything: each unit must be there once, and each group's heads together.
    pub fn problem(&self) -> Option<String> {
        for (what, order) in [("groups", &self.groups), ("heads", &self.heads), ("neurons", &self.neurons)] {
            let mut seen = vec![false; order.len()];
            for &unit in order {
                match seen.get_mut(unit as usize) {
                    None => return Some(format!("{what}: {unit} of {}", order.len())),
                    Some(true) => return Some(format!("{what}: {unit} is there twice")),
                    Some(slot) => *slot = true,
                }
            }
        }
        if self.groups.is_empty() || !self.heads.len().is_multiple_of(self.groups.len()) {
            return Some(format!("{} heads in {} groups", self.heads.len(), self.groups.len()));
        }
        let per_group = self.heads.len() / self.groups.len();
        let strays =
            |(group, heads): (&u32, &[u32])| heads.iter().any(|head| *head as usize / per_group != *group as usize);
        let stray = self.groups.iter().zip(self.heads.chunks_exact(per_group.max(1))).any(strays);
        stray.then(|| "heads: a group's heads are not together".into())
    }
}

/// Indices by falling value; values that are not numbers come last.
fn falling(values: &[f64]) -> Vec<u32> {
    let key = |i: u32| if values[i as usize].is_nan() { f64::NEG_INFINITY } else { values[i as usize] };
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_follow_their_group() {
        let scores = LayerScores {
            groups: vec![1.0, 3.0],
            heads: vec![0.1, 0.9, 1.0, 2.0],
            neurons: vec![0.0, f64::NAN, 5.0, 5.0],
        };
        let order = LayerOrder::by_importance(&scores);
        assert_eq!(order.groups, [1, 0]);
        assert_eq!(order.heads, [3, 2, 1, 0]);
        assert_eq!(order.neurons, [2, 3, 0, 1]);
        assert_eq!(order.problem(), None);
        assert_eq!(LayerOrder::identity(2, 4, 4).problem(), None);
    }

    #[test]
    fn what_is_no_order_is_named() {
        let good = LayerOrder::identity(2, 4, 4);
        let twice = LayerOrder { neurons: vec![0, 1, 1, 2], ..good.clone() };
        assert_eq!(twice.problem().as_deref(), Some("neurons: 1 is there twice"));
        let past = LayerOrder { groups: vec![0, 2], ..good.clone() };
        assert_eq!(past.problem().as_deref(), Some("groups: 2 of 2"));
        let torn = LayerOrder { heads: vec![0, 2, 1, 3], ..good.clone() };
        assert_eq!(torn.problem().as_deref(), Some("heads: a group's heads are not together"));
        let odd = LayerOrder { heads: vec![0, 1, 2], ..good };
        assert_eq!(odd.problem().as_deref(), Some("3 heads in 2 groups"));
        assert!(LayerOrder { groups: vec![], heads: vec![], neurons: vec![] }.problem().is_some());
    }
}
