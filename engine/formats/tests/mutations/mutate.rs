//! Ways to spoil a file.

use concertina_formats::testing::{Field, FieldKind, Rng};

/// Numbers that break readers: zeros, ones, signs, powers of two and what lies next to them.
const NASTY: [u64; 20] = [
    0,
    1,
    2,
    3,
    5,
    7,
    31,
    33,
    255,
    256,
    65_535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Change the number or text of one field, little or much.
pub fn field(bytes: &mut [u8], field: &Field, rng: &mut Rng) {
    let slot = &mut bytes[field.at..field.at + field.len];
    if slot.is_empty() {
        return;
    }
    if field.kind == FieldKind::Text || field.len > 8 || rng.below(4) == 0 {
        let at = rng.below(slot.len());
        slot[at] = rng.byte();
        return;
    }
    let mut wide = [0; 8];
    wide[..slot.len()].copy_from_slice(slot);
    let old = u64::from_le_bytes(wide);
    let new = match rng.below(6) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old.wrapping_mul(2),
        3 => rng.bits() >> rng.below(64),
        4 => old.wrapping_add(*rng.pick(&NASTY)),
        _ => *rng.pick(&NASTY),
    };
    slot.copy_from_slice(&new.to_le_bytes()[..slot.len()]);
}

/// Change bytes without knowing what they are: flips, truncation, runs moved, removed, doubled or overwritten.
pub fn bytes(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.below(bytes.len());
    let run = at..bytes.len().min(at + 1 + rng.below(64));
    match rng.below(7) {
        0 => {
            for _ in 0..=rng.below(8) {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }
        }
        1 => bytes.truncate(at),
        2 => drop(bytes.drain(run)),
        3 => {
            let copy = bytes[run].to_vec();
            bytes.splice(at..at, copy);
        }
        4 => {
            let (copy, to) = (bytes[run].to_vec(), rng.below(bytes.len()));
            let end = bytes.len().min(to + copy.len());
            bytes.splice(to..end, copy);
        }
        5 => bytes[run].fill(if rng.below(2) == 0 { 0 } else { 0xff }),
        _ => bytes[at] = rng.byte(),
    }
}

/// Change a JSON file, or the header of a safetensors file: numbers and words become others, or bytes change.
pub fn json_file(file: &mut Vec<u8>, safetensors: bool, rng: &mut Rng) {
    let (start, end) = if safetensors {
        if rng.below(8) == 0 {
            let field = Field { kind: FieldKind::StringLength, at: 0, len: 8, owner: String::new() };
            return self::field(file, &field, rng);
        }
        let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        (8, 8 + len)
    } else {
        (0, file.len())
    };
    let mut json = file[start..end].to_vec();
    match rng.below(3) {
        0 => bytes(&mut json, rng),
        1 => number(&mut json, rng),
        _ => word(&mut json, rng),
    }
    if safetensors {
        file[..8].copy_from_slice(&(json.len() as u64).to_le_bytes());
    }
    file.splice(start..end, json);
}

/// Replace one number by another.
fn number(json: &mut Vec<u8>, rng: &mut Rng) {
    let from = rng.below(json.len());
    let Some(start) = json[from..].iter().position(u8::is_ascii_digit).map(|i| from + i) else {
        return;
    };
    let len = json[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    let new = match rng.below(4) {
        0 => format!("-{}", rng.below(10)),
        1 => "1e999".to_owned(),
        2 => (rng.bits() >> rng.below(64)).to_string(),
        _ => rng.pick(&NASTY).to_string(),
    };
    json.splice(start..start + len, new.into_bytes());
}

/// Replace the value after one colon by something else.
fn word(json: &mut Vec<u8>, rng: &mut Rng) {
    let from = rng.below(json.len());
    let Some(start) = json[from..].iter().position(|&b| b == b':').map(|i| from + i + 1) else {
        return;
    };
    let len = json[start..].iter().take_while(|b| !b",}]".contains(b)).count();
    let deep = "[".repeat(200);
    let new = *rng.pick(&["null", "true", "\"x\"", "[]", "{}", "-1", "0.5", "\"F64\"", &deep, "\"\\ud800\"", ""]);
    json.splice(start..start + len, new.bytes());
}
