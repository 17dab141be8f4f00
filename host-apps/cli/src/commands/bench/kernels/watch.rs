//! Matrix kernels from a directory of WGSL, checked and measured anew at every change.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use concertina::Engine;
use concertina::shaders::{Role, VARIANTS, Variant, preprocess};
use concertina::tune::{Candidate, Family, MatrixRole};

/// Between two looks at the directory.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// A kernel as it was last read.
struct Watched {
    /// As it is in the program.
    built: &'static Variant,
    /// Expanded WGSL, or why it cannot be expanded.
    source: std::result::Result<String, String>,
    /// As it was last measured right.
    current: &'static Variant,
    role: MatrixRole,
}

/// Watch `directory`, and measure the matrix kernels of the model's formats as they change. Mistakes in a shader are
/// printed. Ends after `looks`, if that is not 0.
pub fn watch(engine: &mut Engine, directory: &Path, looks: u32) -> Result<()> {
    let roles = engine.matrix_roles();
    let mut watched: Vec<Watched> = VARIANTS
        .iter()
        .filter(|v| v.role == Role::Matrix)
        .filter_map(|built| {
            // The heaviest role of the family that the kernel is made for comes first.
            let family = if built.group[1] > 1 { Family::Wide } else { Family::Narrow };
            let is_of = |role: &&MatrixRole| role.family == family && Some(role.shape.format) == built.format;
            let role = *roles.iter().find(is_of)?;
            Some(Watched { built, source: Ok(built.source.into()), current: built, role })
        })
        .collect();
    let stems: std::collections::BTreeSet<&str> = watched.iter().map(|w| w.built.file).collect();
    for stem in stems {
        let path = directory.join(format!("{stem}.wgsl"));
        ensure!(path.is_file(), "{} is not there: --watch wants the directory shaders/wgsl", path.display());
    }
    println!("watching {} kernels under {}; stop with Ctrl-C", watched.len(), directory.display());
    let mut generation = 0u32;
    let mut look = 0;
    loop {
        let mut files = BTreeMap::new();
        for kernel in &mut watched {
            let source = expand(directory, kernel.built, &mut files);
            if source == kernel.source {
                continue;
            }
            generation += 1;
            kernel.source = source;
            println!("{}", tell(engine, kernel, generation)?);
        }
        look += 1;
        if look == looks {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The kernel's WGSL after preprocessing; each file is read once a look.
fn expand(
    directory: &Path,
    variant: &Variant,
    files: &mut BTreeMap<String, std::result::Result<String, String>>,
) -> std::result::Result<String, String> {
    let mut load = |stem: &str| {
        let read =
            || std::fs::read_to_string(directory.join(format!("{stem}.wgsl"))).map_err(|e| format!("{stem}.wgsl: {e}"));
        files.entry(stem.to_owned()).or_insert_with(read).clone()
    };
    let root = load(variant.file)?;
    let defines = variant.defines.iter().map(|name| (*name).to_owned()).collect();
    preprocess::expand(&root, &defines, &mut load)
}

/// Check and measure a changed kernel beside what it was.
fn tell(engine: &mut Engine, kernel: &mut Watched, generation: u32) -> Result<String> {
    let name = kernel.built.name;
    let source = match &kernel.source {
        Ok(source) => source.clone(),
        Err(why) => return Ok(format!("{name}: {why}")),
    };
    // Variants live as long as the program: a session of edits leaves a few megabytes behind.
    let changed: &'static Variant = Box::leak(Box::new(Variant {
        name: format!("{name}#{generation}").leak(),
        source: source.leak(),
        ..*kernel.built
    }));
    let new = trial(engine, kernel, changed)?;
    let ns = match (&new.parity, new.ns) {
        (Ok(_), Some(ns)) => ns,
        (Err(why), _) => return Ok(format!("{name}: REFUSED, the last one stays: {why}")),
        (Ok(_), None) => return Ok(format!("{name}: not measured")),
    };
    // Measured again now, so that both saw the same machine.
    let old = trial(engine, kernel, kernel.current)?.ns;
    kernel.current = changed;
    let against = old.map_or_else(String::new, |old| {
        format!(", {:+.1} % against {:.1} us before", 100.0 * (ns / old - 1.0), old / 1e3)
    });
    let error = new.parity.as_ref().map_or(0.0, |error| *error);
    Ok(format!("{name}: right (off by {error:.0e}), {:.1} us for {}{against}", ns / 1e3, kernel.role))
}

fn trial(engine: &mut Engine, kernel: &Watched, variant: &'static Variant) -> Result<Candidate> {
    pollster::block_on(engine.trial(&kernel.role, variant)).with_context(|| format!("measuring {}", variant.name))
}
