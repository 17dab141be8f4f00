//! Levels: which units of the model each keeps.

use concertina_elastic::package::{LevelAdapters, Package};
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
        let level = self.level_run(level)?;
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
        device.forward.set_sub_model(&mut device.backend, sub.clone())?;
        device.warm.retain(|(level, ..)| *level != sub.level);
        self.sub_models.retain(|old| old.level != sub.level);
        self.adapters.retain(|old| old.level != sub.level);
        self.sub_models.push(sub);
        Ok(())
    }
}

impl Engine {
    /// Use a package from now on: each of its levels keeps the units that were searched for, with the recovery adapters
    /// beside them. The model must be the one whose units lie in the package's order; whoever knows its file compares
    /// [`ModelId::permuted_blake3`](concertina_elastic::package::ModelId). Levels between those of the table run as the next
    /// lower one, those below the first as the first.
    ///
    /// # Errors
    /// If the package is for a model of other sizes, or adapters are of a rank that the kernel does not take.
    pub fn use_package(&mut self, package: &Package) -> Result<()> {
        let (spec, shape) = (&self.model.spec, &package.shape);
        let ours = [spec.layers.len(), spec.dim, spec.n_heads, spec.head_dim, spec.n_groups, spec.ffn];
        let theirs = [shape.layers, shape.dim, shape.heads, shape.head_dim, shape.groups, shape.neurons];
        if ours != theirs {
            return Err(Error::Invalid(format!(
                "the package is for a model of other sizes: {theirs:?} and not {ours:?} \
                 (layers, width, heads, dimensions of a head, groups, neurons)"
            )));
        }
        package.levels.iter().try_for_each(|sub| self.set_sub_model(sub.clone()))?;
        package.adapters.iter().try_for_each(|adapters| self.set_adapters(adapters.clone()))?;
        self.package = Some(package_hash(package)?);
        self.table = package.levels.iter().map(|sub| sub.level).collect();
        Ok(())
    }

    /// Without the recovery adapters that [`Engine::use_package`] brought: for measurements.
    pub fn drop_adapters(&mut self) -> Result<()> {
        self.adapters.clear();
        let subs = self.sub_models.clone();
        subs.into_iter().try_for_each(|sub| self.set_sub_model(sub))
    }

    /// Bytes that a level's recovery adapters take as they are stored.
    pub fn adapter_bytes(&self, level: u32) -> u64 {
        let of_level = self.adapters.iter().find(|adapters| adapters.level == level);
        of_level.map_or(0, |level| level.sites.iter().map(|(_, _, adapter)| adapter.bytes() as u64).sum())
    }

    fn set_adapters(&mut self, adapters: LevelAdapters) -> Result<()> {
        let device = self.device.as_mut().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        device.forward.set_adapters(&mut device.backend, &adapters)?;
        device.warm.retain(|(level, ..)| *level != adapters.level);
        self.adapters.retain(|old| old.level != adapters.level);
        self.adapters.push(adapters);
        Ok(())
    }

    /// Levels of the package's table, rising; empty without one.
    pub fn levels(&self) -> &[u32] {
        &self.table
    }

    /// The level that runs where `level` is asked for: itself without a table, else the table's next lower one.
    ///
    /// # Errors
    /// If the level is not between 1 and 100.
    pub fn level_run(&self, level: u32) -> Result<u32> {
        check_level(level)?;
        // One that was set by hand is taken at its word.
        if self.sub_models.iter().any(|sub| sub.level == level) {
            return Ok(level);
        }
        let below = self.table.iter().rev().find(|of_table| **of_table <= level);
        Ok(below.or(self.table.first()).copied().unwrap_or(level))
    }
}

/// A hash of all that a package holds.
///
/// # Errors
/// If it cannot be written as a file.
pub fn package_hash(package: &Package) -> Result<[u8; 32]> {
    let bytes = package.to_bytes().map_err(|e| Error::Invalid(e.to_string()))?;
    Ok(*blake3::hash(&bytes).as_bytes())
}

fn check_level(level: u32) -> Result<()> {
    if (1..=100).contains(&level) {
        return Ok(());
    }
    Err(Error::Invalid(format!("level {level} is not between 1 and 100 percent")))
}
