//! Sub-models: how many units each layer keeps at a level.

use serde::{Deserialize, Serialize};

/// What a layer has, and the steps in which it can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerShape {
    /// KV groups, each with its query heads.
    pub groups: usize,
    /// Neurons of the gated MLP.
    pub neurons: usize,
    /// Groups are kept in multiples of this, so that they fill whole panels of O.
    pub group_step: usize,
    /// Neurons are kept in multiples of this, so that they fill whole panels of `down`.
    pub neuron_step: usize,
}

/// What a layer keeps: a prefix of its units in their stored order. Of attention or of the MLP it may keep none: then that
/// half is left out, and the residual stream passes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LayerUnits {
    /// KV groups kept.
    pub groups: usize,
    /// Neurons kept.
    pub neurons: usize,
}

/// A level of the elastic model: units kept in every layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubModel {
    /// Percentage of the units of layers that are cut.
    pub level: u32,
    /// One entry a layer.
    pub layers: Vec<LayerUnits>,
}

impl SubModel {
    /// All units: level 100.
    pub fn full(shapes: &[LayerShape]) -> Self {
        Self::at_level(shapes, 100, &[])
    }

    /// Keep `level` percent (1 to 100) of each layer's units, rounded to its steps and at least one step; anchor layers
    /// keep all.
    ///
    /// # Panics
    /// If `level` is not in 1..=100.
    pub fn at_level(shapes: &[LayerShape], level: u32, anchors: &[usize]) -> Self {
        assert!((1..=100).contains(&level), "level {level} is not in 1..=100");
        let layers = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                let level = if anchors.contains(&i) { 100 } else { level as usize };
                LayerUnits {
                    groups: keep(shape.groups, level, shape.group_step),
                    neurons: keep(shape.neurons, level, shape.neuron_step),
                }
            })
            .collect();
        Self { level, layers }
    }
}

/// `level` percent of `all`, to the nearest multiple of `step`, at least one step and at most all.
fn keep(all: usize, level: usize, step: usize) -> usize {
    let steps = (all * level + 50 * step) / (100 * step);
    (steps.max(1) * step).min(all)
}

impl SubModel {
    /// Whether keys and values that `self` wrote can be read by `reader`. They can where no KV group of the reader's is
    /// missing, and the level that wrote them is at most `slack` percent below the reader's: what more of the model computed
    /// is at least as good as what the reader would compute itself.
    pub fn feeds(&self, reader: &SubModel, slack: u32) -> bool {
        let groups = self.layers.iter().zip(&reader.layers).all(|(wrote, reads)| wrote.groups >= reads.groups);
        let other = self.level != reader.level && self.level + slack >= reader.level;
        self == reader || (groups && other && self.layers.len() == reader.layers.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_model_reads_what_a_larger_one_wrote() {
        let sub = |level, groups: &[usize]| SubModel {
            level,
            layers: groups.iter().map(|groups| LayerUnits { groups: *groups, neurons: 32 }).collect(),
        };
        let (whole, most, half) = (sub(100, &[3, 3]), sub(90, &[3, 3]), sub(50, &[3, 2]));
        assert!(whole.feeds(&whole, 0) && whole.feeds(&half, 0) && most.feeds(&half, 0));
        assert!(!half.feeds(&whole, 0) && !half.feeds(&most, 100), "a group is missing");
        assert!(!most.feeds(&whole, 0) && most.feeds(&whole, 10) && !most.feeds(&whole, 9));
        assert!(!whole.feeds(&sub(50, &[3]), 0));
    }

    #[test]
    fn levels_keep_whole_steps_and_anchors_keep_all() {
        let shape = LayerShape { groups: 3, neurons: 1536, group_step: 1, neuron_step: 32 };
        let at = |level, anchors: &[usize]| SubModel::at_level(&[shape; 2], level, anchors).layers;
        assert_eq!(at(100, &[])[0], LayerUnits { groups: 3, neurons: 1536 });
        assert_eq!(at(20, &[1])[0], LayerUnits { groups: 1, neurons: 320 });
        assert_eq!(at(20, &[1])[1], LayerUnits { groups: 3, neurons: 1536 });
        assert_eq!(at(1, &[])[0], LayerUnits { groups: 1, neurons: 32 });
        assert_eq!(at(60, &[])[0].groups, 2);
    }

    #[test]
    fn prefixes_grow_with_the_level() {
        let shape = LayerShape { groups: 8, neurons: 8960, group_step: 2, neuron_step: 256 };
        let kept: Vec<LayerUnits> = (1..=100).map(|l| SubModel::at_level(&[shape], l, &[]).layers[0]).collect();
        assert!(kept.windows(2).all(|w| w[0].groups <= w[1].groups && w[0].neurons <= w[1].neurons));
        assert!(kept.iter().all(|k| k.groups % 2 == 0 && k.neurons % 256 == 0));
    }
}
