//! Contexts' names as people write them.

use concertina::service::ContextId;

/// 16 hex digits.
pub fn show_id(id: ContextId) -> String {
    format!("{:016x}", id.0)
}

pub fn parse_id(text: &str) -> Result<ContextId, String> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    id.map(ContextId).ok_or_else(|| "a context's id is 16 hex digits, as `concertina ctx list` shows them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_go_there_and_back() {
        for id in [0, 1, 0xdead_beef, u64::MAX] {
            assert_eq!(parse_id(&show_id(ContextId(id))), Ok(ContextId(id)));
        }
        assert_eq!(parse_id("00000000DEADBEEF"), Ok(ContextId(0xdead_beef)));
        for bad in ["", "1", "+00000000deadbee", "00000000deadbeef0", "0x000000deadbeef", "0000000000000öö"] {
            assert!(parse_id(bad).is_err(), "{bad}");
        }
    }
}
