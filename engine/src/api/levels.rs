//! Levels: which units of the model each keeps.

use concertina_elastic::package::Package;
use concertina_elastic::{LayerShape, SubModel};

use super::Engine;
use crate::forward::WeightBytes;
use crate::{Error, Result};

impl Engine {
    /// What each layer has, and the steps in which it can be cut. Empty while no device is open.
    pub fn shapes(&self) -> Vec<LayerShape> {
        self.device.as_ref().map_or_else(Vec::new, |device| device.forward.shapes())
    }

    /// Units that each layer keeps at a level.
    ///
    /// # Errors
    /// If the level is not between 1 and 100, or no device is open.
    pub fn sub_model(&mut self, level: u32) -> Result<SubModel> {
        check_level(level)?;
        let device = self.device.as_mut().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        Ok(device.forward.sub_model(level).clone())
    }

    /// Bytes of weights that decoding a token reads at a level.
    ///
    /// # Errors
    /// As [`Engine::sub_model`].
    pub fn weight_bytes(&mut self, level: u32) -> Result<WeightBytes> {
        let sub = self.sub_model(level)?;
        let device = self.device.as_ref().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        Ok(device.forward.weight_bytes(&sub))
    }

    /// Use `sub` for its level from now on. Keys and values that the level's former sub-model wrote are recomputed when
    /// their contexts are next used.
    ///
    /// # Errors
    /// If it does not fit the model: a layer too many or too few, units past the last, or a cut inside a panel.
    pub fn set_sub_model(&mut self, sub: SubModel) -> Result<()> {
        check_level(sub.level)?;
        let device = self.device.as_mut().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        device.forward.set_sub_model(sub.clone())?;
        self.sub_models.retain(|old| old.level != sub.level);
        self.sub_models.push(sub);
        Ok(())
    }
}

impl Engine {
    /// Use the level table of a package from now on: each of its levels keeps the units that were searched for. The model must
    /// be the one whose units lie in the package's order. Its recovery adapters are not used yet.
    ///
    /// # Errors
    /// If the package is for a model of other sizes.
    pub fn use_levels(&mut self, package: &Package) -> Result<()> {
        let (spec, shape) = (&self.model.spec, &package.shape);
        let ours = [spec.layers.len(), spec.dim, spec.n_heads, spec.head_dim, spec.n_groups, spec.ffn];
        let theirs = [shape.layers, shape.dim, shape.heads, shape.head_dim, shape.groups, shape.neurons];
        if ours != theirs {
            return Err(Error::Invalid(format!(
                "the package is for a model of other sizes: {theirs:?} and not {ours:?} \
                 (layers, width, heads, dimensions of a head, groups, neurons)"
            )));
        }
        package.levels.iter().try_for_each(|sub| self.set_sub_model(sub.clone()))
    }
}

pub(crate) fn check_level(level: u32) -> Result<()> {
    if (1..=100).contains(&level) {
        return Ok(());
    }
    Err(Error::Invalid(format!("level {level} is not between 1 and 100 percent")))
}
