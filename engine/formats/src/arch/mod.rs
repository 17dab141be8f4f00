//! The architectures that Concertina reads. Adding one is one file here and one line in `REGISTRY`.
//!
//! An architecture turns hyperparameters (GGUF metadata, or `config.json`) into a [`ModelSpec`] and says which optional
//! tensors it has and what they are called. Everything else is common: reading and checking the hyperparameters that
//! all of them share, and finding each tensor with the shape that the spec asks for. A tensor that is left over is an
//! error: it would change what the model computes.

mod check;
mod gemma3;
mod gguf_keys;
mod hf_keys;
mod llama;
mod names;
mod qwen2;
mod rope;

use crate::gguf::Gguf;
use crate::safetensors::{Config, Directory};
use crate::table::TensorTable;
use crate::{ByteSource, Error, ModelSpec, ModelTensors, Result};
use gguf_keys::Keys;
use names::{Names, Parts};

const REGISTRY: &[&Arch] = &[&llama::ARCH, &qwen2::ARCH, &gemma3::ARCH];

/// One architecture.
struct Arch {
    /// `general.architecture` of its GGUF files, and [`ModelSpec::arch`].
    gguf: &'static str,
    /// `model_type` of its `config.json`.
    hf: &'static str,
    /// Which optional tensors it has.
    parts: Parts,
    /// Names of its tensors in Hugging Face checkpoints.
    hf_names: Names,
    /// Hyperparameters from GGUF metadata; may take tensors that hold hyperparameters out of the table.
    spec_from_gguf: fn(&Keys<'_>, &mut TensorTable<'_>) -> Result<ModelSpec>,
    /// Hyperparameters from `config.json`.
    spec_from_hf: fn(&Config) -> Result<ModelSpec>,
}

/// The spec and the tensors that a GGUF header describes. `sources[0]` is the file: a few small tensors that hold
/// hyperparameters (llama 3's `rope_freqs`) are read from it.
///
/// # Errors
/// [`Error::Malformed`] naming the key or tensor that is missing or contradicts another; [`Error::Unsupported`] for
/// architectures and features that Concertina does not compute.
pub fn from_gguf(gguf: &Gguf, sources: &[Box<dyn ByteSource>]) -> Result<(ModelSpec, ModelTensors)> {
    let name = gguf.metadata.str("general.architecture")?;
    let arch = find(name, "metadata 'general.architecture'", |arch| arch.gguf)?;
    let keys = Keys::new(&gguf.metadata, arch.gguf);
    let mut table = TensorTable::new(&gguf.tensors, sources);
    let spec = (arch.spec_from_gguf)(&keys, &mut table)?;
    check::spec(&spec)?;
    let tensors = names::GGUF.find(&spec, arch.parts, &mut table)?;
    table.expect_empty(arch.gguf)?;
    Ok((spec, tensors))
}

/// The spec and the tensors of a Hugging Face directory.
pub(crate) fn from_directory(directory: &Directory) -> Result<(ModelSpec, ModelTensors)> {
    let config = &directory.config;
    let name = config.opt_str("model_type")?.ok_or_else(|| Error::malformed(config.field("model_type"), "missing"))?;
    let arch = find(name, "config.json 'model_type'", |arch| arch.hf)?;
    hf_keys::refuse_common(config)?;
    let spec = (arch.spec_from_hf)(config)?;
    check::spec(&spec)?;
    let mut table = TensorTable::new(&directory.tensors, &directory.sources);
    // Frequencies of RoPE, which old checkpoints store although they follow from the config.
    table.forget(|name| name.ends_with(".rotary_emb.inv_freq"));
    if hf_keys::tied(config, arch.hf)? {
        table.forget(|name| name == arch.hf_names.output);
    } else {
        let field = || format!("tensor '{}'", arch.hf_names.output);
        if !table.contains(arch.hf_names.output) {
            return Err(Error::malformed(field(), "missing, and config.json does not tie it to the embedding"));
        }
    }
    let tensors = arch.hf_names.find(&spec, arch.parts, &mut table)?;
    table.expect_empty(arch.gguf)?;
    Ok((spec, tensors))
}

fn find(name: &str, field: &str, of: fn(&Arch) -> &'static str) -> Result<&'static Arch> {
    REGISTRY.iter().copied().find(|arch| of(arch) == name).ok_or_else(|| {
        let known: Vec<&str> = REGISTRY.iter().map(|arch| of(arch)).collect();
        Error::Unsupported(format!("{field} is {name:?}; known are {known:?}"))
    })
}
