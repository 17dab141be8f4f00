//! What stands before a prompt and may be shortened for a target, while the prompt itself stays.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use concertina::Stay;
use concertina::elastic::prompt::words;

/// Text before a prompt.
#[derive(Debug, Clone, Default, Args)]
pub struct BeforeArgs {
    /// A file of solved examples that goes before the prompt. A target or --prompt-level shortens the examples alone, and a level
    /// that does better without reads none of them
    #[arg(long, value_name = "FILE", conflicts_with = "passage")]
    pub examples: Option<PathBuf>,
    /// A file with the text that the prompt is about, which goes before it. A target or --prompt-level shortens that text alone
    #[arg(long, value_name = "FILE")]
    pub passage: Option<PathBuf>,
}

impl BeforeArgs {
    /// The whole text: what stands before, a blank line where it has none at its end, and the prompt.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn with(&self, prompt: String) -> Result<Behind> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {} as text", path.display()))
        };
        let (mut text, examples) = match (&self.examples, &self.passage) {
            (Some(path), _) => (read(path)?, true),
            (None, Some(path)) => (read(path)?, false),
            (None, None) => return Ok(Behind::alone(prompt)),
        };
        let end = text.trim_end().len();
        text.truncate(end);
        if end > 0 {
            text.push_str("\n\n");
        }
        let from = text.len();
        text += &prompt;
        Ok(Behind::from(text, from, examples))
    }
}

/// A prompt behind a text.
#[derive(Debug, Clone)]
pub struct Behind {
    /// All of it.
    pub text: String,
    /// By word, whether it stays.
    stays: Vec<bool>,
    examples: bool,
}

impl Behind {
    /// Nothing stands before it: all of its words may go.
    pub fn alone(text: String) -> Self {
        Self { text, stays: Vec::new(), examples: false }
    }

    /// What begins at byte `from` stays; before it are examples, or another text.
    pub fn from(text: String, from: usize, examples: bool) -> Self {
        let stays = words(&text).iter().map(|word| word.text.start >= from).collect();
        Self { text, stays, examples }
    }

    /// Whether some words may go and others stay.
    pub fn has_before(&self) -> bool {
        self.stays.contains(&true) && self.stays.contains(&false)
    }

    /// Do something with it as planners take it.
    pub fn stay<T>(&self, then: impl FnOnce(Stay<'_>) -> T) -> T {
        then(Stay { words: &|word| self.stays.get(word).copied().unwrap_or(false), examples: self.examples })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stays(of: &Behind) -> (Vec<bool>, bool) {
        let count = words(&of.text).len();
        of.stay(|stay| ((0..count).map(stay.words).collect(), stay.examples))
    }

    #[test]
    fn the_prompt_stays_and_what_stands_before_it_may_go() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("before.txt");
        std::fs::write(&file, "one two\n").unwrap();
        let of = |args: &BeforeArgs| args.with("three four".into()).unwrap();
        let behind = of(&BeforeArgs { examples: Some(file.clone()), passage: None });
        assert_eq!(behind.text, "one two\n\nthree four");
        assert_eq!(stays(&behind), (vec![false, false, true, true], true));
        let behind = of(&BeforeArgs { examples: None, passage: Some(file.clone()) });
        assert_eq!(stays(&behind), (vec![false, false, true, true], false));
        assert_eq!(
            stays(&of(&BeforeArgs::default())),
            (vec![false, false], false),
            "any word may go of a prompt alone"
        );
        std::fs::write(&file, " \n").unwrap();
        let behind = of(&BeforeArgs { examples: Some(file), passage: None });
        assert_eq!((behind.text.as_str(), stays(&behind).0), ("three four", vec![true, true]));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let args = BeforeArgs { examples: None, passage: Some("not/there.txt".into()) };
        assert!(args.with("x".into()).unwrap_err().to_string().contains("not/there.txt"));
    }
}
