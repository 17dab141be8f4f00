//! Scaling of rotary position embeddings.

use crate::safetensors::Config;
use crate::table::TensorTable;
use crate::{DType, Error, Result, RopeSpec};
use std::f64::consts::TAU;

/// Base of the frequencies when a file does not say: RoFormer's.
pub(super) const DEFAULT_BASE: f64 = 10_000.0;

/// RoPE from `config.json`: `rope_theta` and `rope_scaling`, or `rope_parameters`, which holds both (transformers 5), for
/// each kind of layer where the model has several (`layer_type`).
pub(super) fn from_config(
    config: &Config,
    layer_type: Option<&str>,
    default_base: f64,
    head_dim: usize,
) -> Result<RopeSpec> {
    let parameters = match (config.opt_object("rope_parameters")?, layer_type) {
        (Some(all), Some(kind)) => all.opt_object(kind)?.or(Some(all)),
        (parameters, _) => parameters,
    };
    let theta = |config: &Config| config.opt_f64("rope_theta");
    let base = match parameters.as_ref().map(theta).transpose()?.flatten() {
        Some(base) => base,
        None => theta(config)?.unwrap_or(default_base),
    };
    let mut rope = RopeSpec { base, scale: 1.0, factors: Vec::new() };
    let scaling = match parameters {
        None => config.opt_object("rope_scaling")?,
        parameters => parameters,
    };
    let Some(scaling) = scaling else {
        return Ok(rope);
    };
    let kind = match scaling.opt_str("rope_type")? {
        None => scaling.opt_str("type")?,
        kind => kind,
    };
    match kind {
        None | Some("default") => {}
        Some("linear") => rope.scale = scaling.f64("factor")?,
        Some("llama3") => rope.factors = llama3_factors(&scaling, base, head_dim)?,
        Some(other) => {
            return Err(Error::Unsupported(format!(
                "{} of '{other}'; 'default', 'linear' and 'llama3' are computed",
                scaling.field("rope_type")
            )));
        }
    }
    Ok(rope)
}

/// Divisors of Llama 3.1's context extension: short waves stay, long ones are stretched by `factor`, those between are
/// blended by how many of their waves fit the original context.
fn llama3_factors(scaling: &Config, base: f64, head_dim: usize) -> Result<Vec<f32>> {
    let factor = scaling.f64("factor")?;
    let low = scaling.f64("low_freq_factor")?;
    let high = scaling.f64("high_freq_factor")?;
    let original = scaling.usize("original_max_position_embeddings")? as f64;
    if !(factor >= 1.0 && low > 0.0 && high > low && original > 0.0) {
        return Err(Error::malformed(
            scaling.field("factor"),
            format!(
                "factor {factor}, low_freq_factor {low}, high_freq_factor {high}, original context {original}: \
                 expected factor >= 1 and 0 < low < high"
            ),
        ));
    }
    let divisor = |i: usize| {
        let wave = TAU * base.powf(2.0 * i as f64 / head_dim as f64);
        let waves = original / wave;
        if waves > high {
            1.0
        } else if waves < low {
            factor
        } else {
            let keep = (waves - low) / (high - low);
            1.0 / ((1.0 - keep) / factor + keep)
        }
    };
    Ok((0..head_dim / 2).map(|i| divisor(i) as f32).collect())
}

/// The same divisors as GGUF stores them: the tensor `rope_freqs.weight`, if the file has it.
pub(super) fn gguf_factors(table: &mut TensorTable<'_>, head_dim: usize) -> Result<Vec<f32>> {
    let name = "rope_freqs.weight";
    let Some(info) = table.take(name, 1, head_dim / 2)? else {
        return Ok(Vec::new());
    };
    if info.dtype != DType::F32 {
        return Err(Error::malformed(format!("tensor '{name}' type"), format!("found {:?}, expected F32", info.dtype)));
    }
    let bytes = table.read(&info)?;
    Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}
