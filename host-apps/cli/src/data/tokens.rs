//! The input of `eval logits`: a token sequence and the positions that are asked for.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// `{"tokens": [ids], "positions": [indices into tokens]}`. Other fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokensFile {
    /// Never empty.
    pub tokens: Vec<u32>,
    /// Never empty; each below the number of tokens. Any order, and repeats are allowed.
    pub positions: Vec<usize>,
}

impl TokensFile {
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{}", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let shape = r#"the file must be {"tokens": [ids], "positions": [indices]}"#;
        let file: Self = serde_json::from_str(text).context(shape)?;
        ensure!(!file.tokens.is_empty(), "`tokens` is empty");
        ensure!(!file.positions.is_empty(), "`positions` is empty");
        for (index, position) in file.positions.iter().enumerate() {
            ensure!(
                *position < file.tokens.len(),
                "positions[{index}] is {position}, but there are only {} tokens",
                file.tokens.len()
            );
        }
        Ok(file)
    }

    /// An error that names the first token the vocabulary does not have.
    pub fn check_vocabulary(&self, vocabulary: usize) -> Result<()> {
        let outside = self.tokens.iter().position(|token| *token as usize >= vocabulary);
        if let Some(index) = outside {
            let token = self.tokens[index];
            anyhow::bail!("tokens[{index}] is {token}, but the model's vocabulary has {vocabulary} tokens");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_is_read() {
        let file = TokensFile::parse(r#"{"tokens": [1, 5], "positions": [1, 0, 1], "note": 0}"#).unwrap();
        assert_eq!((file.tokens.as_slice(), file.positions.as_slice()), (&[1, 5][..], &[1, 0, 1][..]));
        assert!(file.check_vocabulary(6).is_ok());
        let error = file.check_vocabulary(5).unwrap_err().to_string();
        assert_eq!(error, "tokens[1] is 5, but the model's vocabulary has 5 tokens");
    }

    #[test]
    fn bad_files_say_what_is_wrong() {
        let cases = [
            (r#"{"tokens": [], "positions": [0]}"#, "`tokens` is empty"),
            (r#"{"tokens": [1], "positions": []}"#, "`positions` is empty"),
            (r#"{"tokens": [1], "positions": [0, 1]}"#, "positions[1] is 1, but there are only 1 tokens"),
            (r#"{"tokens": [-1], "positions": [0]}"#, "invalid value"),
            (r#"{"tokens": [1]}"#, "missing field `positions`"),
            ("[1, 2]", "must be {\"tokens\""),
            ("", "must be {\"tokens\""),
        ];
        for (text, expected) in cases {
            let error = format!("{:#}", TokensFile::parse(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
