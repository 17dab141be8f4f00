//! `concertina elastic apply`: from a package and the model it was made for to files that run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use concertina::elastic::heads::Heads;
use concertina::elastic::package::Package;
use concertina::formats::DType;
use concertina::formats::gguf::{UnitOrder, reorder};
use concertina::native::{MappedFile, blake3_of};

use crate::cli::GlobalArgs;
use crate::models::cache::Cache;
use crate::models::resolve::resolve_model;
use crate::session::labels_of_another;

const EXAMPLES: &str = "\
Examples:
  concertina elastic apply smollm2
  concertina elastic apply model.gguf --package model.elastic.safetensors --out .";

/// Packages that come with the program, with the heads of the prompt's encoder. A package names the model it was made for by
/// its hash.
const BUILT_IN: [(&[u8], &[u8]); 1] = [(
    include_bytes!("../../../../../elastic/artefacts/smollm2-135m-instruct-q4_1.elastic.safetensors"),
    include_bytes!("../../../../../elastic/artefacts/smollm2-135m-instruct-q4_1.encoder.safetensors"),
)];

/// Write the elastic form of a model: NAME.elastic.gguf with its units in the order of a package, and the package beside it;
/// with a built-in package the heads of the prompt's encoder too.
///
/// No text is read and nothing is trained; it takes seconds. The package says by a hash which model it is for, and what
/// comes of it is compared with the hash of the file that its adapters were trained on. The path of the model is written to
/// standard output.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ApplyArgs {
    /// The model that the package was made for [default: --model, or the default model]
    #[arg(value_name = "MODEL")]
    pub name: Option<String>,
    /// The package [default: the one that comes with the program, for models that have one]
    #[arg(long, value_name = "FILE")]
    pub package: Option<PathBuf>,
    /// Where both files go [default: the directory `elastic` of the cache]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

pub fn run(global: &GlobalArgs, args: &ApplyArgs) -> Result<()> {
    let path = resolve_model(args.name.as_deref().or(global.model.as_deref()), global.offline)?;
    let hash = blake3_of(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let Found { bytes, package, heads } = package_for(args.package.as_deref(), &path, &hash)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => Cache::from_env()?.root().join("elastic"),
    };
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let stem = path.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
    let to = out.join(format!("{stem}.elastic.gguf"));
    if !to.is_file() || blake3_of(&to)? != package.model.permuted_blake3 {
        write_model(&path, &package, &to)?;
    }
    write_whole(&out.join(format!("{stem}.elastic.safetensors")), &bytes)?;
    if let Some(heads) = heads {
        let read = Heads::from_bytes(heads).context("the built-in heads cannot be used")?;
        if let Some(remark) = labels_of_another(&read, &package) {
            log::warn!("the prompt's encoder: {remark}");
        }
        write_whole(&out.join(format!("{stem}.encoder.safetensors")), heads)?;
    }
    println!("{}", to.display());
    Ok(())
}

/// A package as its file is and as it was read, with the heads that come with it.
struct Found {
    bytes: Vec<u8>,
    package: Package,
    heads: Option<&'static [u8]>,
}

/// The package that is asked for, or the built-in one that was made for this model.
fn package_for(asked: Option<&Path>, model: &Path, hash: &str) -> Result<Found> {
    if let Some(path) = asked {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let package = Package::from_bytes(&bytes).with_context(|| format!("{} cannot be used", path.display()))?;
        ensure!(
            package.model.source_blake3 == hash,
            "{} was made for another model than {}",
            path.display(),
            model.display()
        );
        return Ok(Found { bytes, package, heads: None });
    }
    for (bytes, heads) in BUILT_IN {
        let package = Package::from_bytes(bytes).context("the built-in package cannot be used")?;
        if package.model.source_blake3 == hash {
            return Ok(Found { bytes: bytes.to_vec(), package, heads: Some(heads) });
        }
    }
    bail!(
        "there is no built-in package for {}: give one with --package, or make one with `concertina elasticize`",
        model.display()
    )
}

fn write_model(from: &Path, package: &Package, to: &Path) -> Result<()> {
    let model = concertina::native::open_model(from).with_context(|| format!("cannot open {}", from.display()))?;
    let source = MappedFile::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let name = &package.model.down;
    let down = [DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0, DType::F16, DType::F32];
    let down = down.into_iter().find(|dtype| format!("{dtype:?}") == *name);
    let down = down.with_context(|| format!("the package wants `down` as {name}, which is not written"))?;
    let of =
        |order: &'_ concertina::elastic::LayerOrder| (order.groups.clone(), order.heads.clone(), order.neurons.clone());
    let units: Vec<_> = package.order.iter().map(of).collect();
    let order: Vec<UnitOrder<'_>> =
        units.iter().map(|(groups, heads, neurons)| UnitOrder { groups, heads, neurons, weights: None }).collect();
    let temporary = to.with_extension("tmp");
    let what = || format!("cannot write {}", to.display());
    let mut out = BufWriter::new(File::create(&temporary).with_context(what)?);
    reorder(&source, &model, &order, down, &mut out).with_context(what)?;
    out.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all()).with_context(what)?;
    let hash = blake3_of(&temporary)?;
    if hash != package.model.permuted_blake3 {
        let _ = std::fs::remove_file(&temporary);
        bail!(
            "the file that came of it is not the one that the package was made with: its `down` was quantised with weights \
             that the package does not hold. Make both anew with `concertina elasticize`"
        );
    }
    std::fs::rename(&temporary, to).with_context(what)
}

fn write_whole(to: &Path, bytes: &[u8]) -> Result<()> {
    let temporary = to.with_extension("tmp");
    let what = || format!("cannot write {}", to.display());
    let mut file = File::create(&temporary).with_context(what)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(what)?;
    std::fs::rename(&temporary, to).with_context(what)
}
