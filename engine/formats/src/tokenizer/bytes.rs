//! GPT-2's printable alphabet for bytes: how byte-level vocabularies spell bytes as characters.
//!
//! Printable Latin-1 bytes stand for themselves; the other 68 become U+0100 and up, in order.

/// The character that spells `byte`.
pub(super) fn byte_to_char(byte: u8) -> char {
    let code = match byte {
        0..=0x20 => 0x100 + u32::from(byte),
        0x7F..=0xA0 => 0x121 + u32::from(byte - 0x7F),
        0xAD => 0x143,
        printable => u32::from(printable),
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `spelling` stands for, if it is of the alphabet.
pub(super) fn char_to_byte(spelling: char) -> Option<u8> {
    let code = u32::from(spelling);
    let byte = match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The spelling of a text.
pub(super) fn spell(text: &str) -> String {
    text.bytes().map(byte_to_char).collect()
}

/// Append the bytes that a token's spelling stands for; characters outside the alphabet stand for themselves.
pub(super) fn unspell(spelling: &str, out: &mut Vec<u8>) {
    for c in spelling.chars() {
        match char_to_byte(c) {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// The byte that a token text such as `<0x0A>` names.
pub(super) fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hex = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        let spelled: std::collections::HashSet<char> = (0..=255).map(byte_to_char).collect();
        assert_eq!(spelled.len(), 256);
        for byte in 0..=255 {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
        assert_eq!(char_to_byte('漢'), None);
    }

    #[test]
    fn byte_tokens_are_two_hex_digits() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        for not in ["<0xA>", "<0x+A>", "<0x0A", "0x0A>", "<0x00A>", "<0xGG>"] {
            assert_eq!(byte_token(not), None, "{not}");
        }
    }
}
