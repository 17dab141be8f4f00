//! From what the user typed to a path: a name of the catalogue, or a path of their own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::cache::{Cache, State, user_catalogue_path};
use super::catalogue::Catalogue;
use crate::pull::{self, Options};

/// Everything that finding a model needs.
#[derive(Debug, Clone)]
pub struct Resolver {
    pub catalogue: Catalogue,
    pub cache: Cache,
    pub pull: Options,
    /// Nothing is downloaded; a model that is not in the cache is an error.
    pub offline: bool,
}

/// The path of a model by name, alias or path; a model of the catalogue that is not here yet is pulled, with an
/// announcement on standard error, unless `offline`.
pub fn resolve_model(name_or_path: Option<&str>, offline: bool) -> Result<PathBuf> {
    let resolver = Resolver::from_env(offline)?;
    let name = name_or_path.unwrap_or_else(|| resolver.catalogue.default_name());
    resolver.resolve(name)
}

impl Resolver {
    /// The user's catalogue, cache and settings.
    pub fn from_env(offline: bool) -> Result<Self> {
        Ok(Self {
            catalogue: Catalogue::load(user_catalogue_path().as_deref())?,
            cache: Cache::from_env()?,
            pull: Options::from_env(),
            offline,
        })
    }

    /// See [`resolve_model`].
    pub fn resolve(&self, name_or_path: &str) -> Result<PathBuf> {
        // A name of the catalogue wins over a file of that name, so that its meaning does not depend on where one
        // stands. What looks like a path is never taken for a name.
        if !looks_like_path(name_or_path)
            && let Some(model) = self.catalogue.find(name_or_path)
        {
            return match self.cache.state(model)? {
                State::Verified => Ok(self.cache.model_path(model)),
                // Copied in by hand, or touched: pull checks the hash first and needs no network if it is right.
                State::Unverified => {
                    pull::pull(&self.cache, model, &Options { offline: self.offline, ..self.pull.clone() })
                }
                State::Absent | State::WrongSize(_) if self.offline => bail!(
                    "the model `{}` is not downloaded, and downloads are off: run `concertina pull {}` while online",
                    model.name,
                    model.name
                ),
                State::Absent | State::WrongSize(_) => {
                    eprintln!("The model `{}` is not downloaded yet: getting it now, once.", model.name);
                    pull::pull(&self.cache, model, &self.pull)
                }
            };
        }
        let path = Path::new(name_or_path);
        if looks_like_path(name_or_path) || path.exists() {
            check_path(path)?;
            return Ok(path.to_owned());
        }
        self.catalogue.get(name_or_path)?;
        bail!("no model is called `{name_or_path}`")
    }
}

fn looks_like_path(text: &str) -> bool {
    text.contains('/') || text.contains(std::path::MAIN_SEPARATOR) || text.to_ascii_lowercase().ends_with(".gguf")
}

/// A path must lead to a GGUF file or to a directory with safetensors; what is inside is the engine's to check.
fn check_path(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot open the model {}", path.display()))?;
    if metadata.is_dir() {
        let mut entries = std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        let has_weights = entries.any(|e| e.is_ok_and(|e| has_extension(&e.path(), "safetensors")));
        ensure!(has_weights, "the directory {} holds no .safetensors file", path.display());
    } else {
        ensure!(
            has_extension(path, "gguf"),
            "{} is neither a .gguf file nor a directory of safetensors",
            path.display()
        );
    }
    Ok(())
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn resolver(root: &Path) -> Resolver {
        Resolver {
            catalogue: Catalogue::load(None).unwrap(),
            cache: Cache::at(root),
            pull: Options::for_tests(),
            offline: true,
        }
    }

    #[test]
    fn a_cached_model_needs_no_network() {
        let dir = tempfile::tempdir().unwrap();
        let resolver = resolver(dir.path());
        let model = resolver.catalogue.find("smollm2").unwrap();
        fs::create_dir_all(resolver.cache.models_dir()).unwrap();
        let file = fs::File::create(resolver.cache.model_path(model)).unwrap();
        file.set_len(model.bytes).unwrap();
        resolver.cache.mark_verified(model).unwrap();
        for name in ["smollm2", "SMOLLM2-135M", "smollm2-135m-instruct-q4_1"] {
            assert_eq!(resolver.resolve(name).unwrap(), resolver.cache.model_path(model));
        }
    }

    #[test]
    fn offline_says_how_to_get_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = resolver(dir.path()).resolve("gemma").unwrap_err().to_string();
        assert!(error.contains("concertina pull gemma-3-270m-q4_k_m"), "{error}");
    }

    #[test]
    fn paths_work_wherever_names_do() {
        let dir = tempfile::tempdir().unwrap();
        let resolver = resolver(dir.path());
        let gguf = dir.path().join("a.GGUF");
        fs::write(&gguf, "GGUF").unwrap();
        assert_eq!(resolver.resolve(gguf.to_str().unwrap()).unwrap(), gguf);

        let weights = dir.path().join("weights");
        fs::create_dir(&weights).unwrap();
        let error = resolver.resolve(weights.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("no .safetensors file"), "{error}");
        fs::write(weights.join("model.safetensors"), "").unwrap();
        assert_eq!(resolver.resolve(weights.to_str().unwrap()).unwrap(), weights);

        let text = dir.path().join("notes.txt");
        fs::write(&text, "").unwrap();
        assert!(resolver.resolve(text.to_str().unwrap()).unwrap_err().to_string().contains("neither a .gguf"));
        let missing = resolver.resolve("nowhere.gguf").unwrap_err().to_string();
        assert!(missing.contains("cannot open the model nowhere.gguf"), "{missing}");
        let unknown = resolver.resolve("nothing-like-it").unwrap_err().to_string();
        assert!(unknown.contains("no model is called `nothing-like-it`"), "{unknown}");
    }
}
