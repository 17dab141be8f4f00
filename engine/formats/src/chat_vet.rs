//! A look at a template's source before the template engine parses it.
//!
//! The engine's parser bounds its depth in parentheses and blocks, but builds chains (`a | f | f`, `1 + 1 + 1`, `elif`) as
//! deep trees and then walks them by recursion, which a long chain turns into a stack overflow: an abort, not an error.
//! So chains are bounded here, roughly and from above, by the number of words and signs in one tag.

/// Most words and signs in one tag, strings counted as one (the longest tags of known templates have about a hundred).
const MAX_WORDS_A_TAG: usize = 512;
/// Most `elif` in a template.
const MAX_ELIF: usize = 128;

/// What is wrong with the source, if anything.
pub(crate) fn vet(source: &str) -> Result<(), String> {
    let bytes = source.as_bytes();
    let (mut at, mut elifs) = (0, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"{#") {
            at = source.get(at..).and_then(|rest| rest.find("#}")).map_or(bytes.len(), |len| at + len + 2);
        } else if let Some(end) = raw_block(bytes, at) {
            at = end;
        } else if bytes[at..].starts_with(b"{{") || bytes[at..].starts_with(b"{%") {
            let tag = Tag::scan(bytes, at + 2);
            elifs += tag.elifs;
            if tag.words > MAX_WORDS_A_TAG {
                let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
                return Err(format!("a tag of more than {MAX_WORDS_A_TAG} words in line {line}"));
            }
            at = tag.end;
        } else {
            at += 1;
        }
    }
    if elifs > MAX_ELIF {
        return Err(format!("{elifs} times elif, at most {MAX_ELIF}"));
    }
    Ok(())
}

/// The end of the raw block that begins at `at`, if one does.
fn raw_block(bytes: &[u8], at: usize) -> Option<usize> {
    let mut inside = raw_tag(bytes, at, b"raw")?;
    while inside < bytes.len() {
        match raw_tag(bytes, inside, b"endraw") {
            Some(end) => return Some(end),
            None => inside += 1,
        }
    }
    Some(bytes.len())
}

/// The end of a tag of this one word that begins at `at`.
fn raw_tag(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    let rest = bytes.get(at..)?.strip_prefix(b"{%")?;
    let rest = rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"+")).unwrap_or(rest);
    let rest = rest.trim_ascii_start().strip_prefix(word)?.trim_ascii_start();
    let rest = rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"+")).unwrap_or(rest);
    rest.strip_prefix(b"%}").map(|rest| bytes.len() - rest.len())
}

struct Tag {
    end: usize,
    words: usize,
    elifs: usize,
}

impl Tag {
    /// Count from `at`, inside a tag, to its end. Braces that end something else only end the count early when the tag
    /// cannot go on, so a wrong guess splits a tag that the parser refuses.
    fn scan(bytes: &[u8], mut at: usize) -> Tag {
        let mut tag = Tag { end: bytes.len(), words: 0, elifs: 0 };
        let mut open = 0_usize;
        while let Some(&byte) = bytes.get(at) {
            let start = at;
            at += 1;
            match byte {
                b'%' if bytes.get(at) == Some(&b'}') => {
                    tag.end = at + 1;
                    return tag;
                }
                b'}' if open == 0 && bytes.get(at) == Some(&b'}') => {
                    tag.end = at + 1;
                    return tag;
                }
                b'"' | b'\'' => at = string_end(bytes, at, byte),
                b'{' => open += 1,
                b'}' => open = open.saturating_sub(1),
                _ if is_word(byte) => {
                    while bytes.get(at).is_some_and(|byte| is_word(*byte)) {
                        at += 1;
                    }
                    tag.elifs += usize::from(bytes.get(start..at) == Some(b"elif"));
                }
                _ if byte.is_ascii_whitespace() => continue,
                _ => {}
            }
            tag.words += 1;
        }
        tag
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn string_end(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'\\' => 2,
            _ => 1,
        };
        if byte == quote {
            break;
        }
    }
    at.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_found_behind_comments_strings_and_raw_blocks() {
        let chain = format!("{{{{ 1{} }}}}", "+1".repeat(1000));
        for before in [
            "",
            "{# {{ ' #}",
            "{% raw %} {{ ' {% endraw %}",
            "{%- raw -%}{% ' {%+ endraw -%}",
            "{{ '}}' }}",
            "{{ \"\\\"\" }}",
            "{{ {'a': {}} }}",
            "text ' { { % }",
        ] {
            assert!(vet(before).is_ok(), "{before}");
            assert!(vet(&format!("{before}{chain}")).is_err(), "{before}");
        }
    }

    #[test]
    fn strings_of_any_length_are_one_word() {
        assert!(vet(&format!("{{{{ '{}' }}}}", "a b | c ".repeat(10_000))).is_ok());
    }
}
