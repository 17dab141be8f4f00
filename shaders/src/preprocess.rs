//! The textual preprocessor of the WGSL sources: `#import`, `#ifdef`, `#ifndef`, `#else`, `#endif`, one directive a line.
//!
//! Names stand for features (f16, subgroups, widths of pages, small heads) and weight formats only; numbers are constants of the root
//! kernels.
//! Used by the build script, and at run time when shaders are reloaded.

use std::collections::BTreeSet;

/// Expand `root`. `load` gives the text of an import (`shared/weights` for `#import shared/weights`). A file imported
/// twice appears once.
pub fn expand(
    root: &str,
    defines: &BTreeSet<String>,
    load: &mut dyn FnMut(&str) -> Result<String, String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(root.len() * 2);
    let mut seen = BTreeSet::new();
    expand_into("<root>", root, defines, load, &mut seen, &mut out)?;
    Ok(out)
}

fn expand_into(
    name: &str,
    text: &str,
    defines: &BTreeSet<String>,
    load: &mut dyn FnMut(&str) -> Result<String, String>,
    seen: &mut BTreeSet<String>,
    out: &mut String,
) -> Result<(), String> {
    // One entry an open conditional: whether its current branch is taken.
    let mut taken: Vec<bool> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let fail = |what: &str| Err(format!("{name}:{}: {what}", number + 1));
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("#ifdef"), Some(flag)) => taken.push(defines.contains(flag)),
            (Some("#ifndef"), Some(flag)) => taken.push(!defines.contains(flag)),
            (Some("#else"), None) => match taken.last_mut() {
                Some(top) => *top = !*top,
                None => return fail("#else without #ifdef"),
            },
            (Some("#endif"), None) => {
                if taken.pop().is_none() {
                    return fail("#endif without #ifdef");
                }
            }
            (Some("#import"), Some(import)) => {
                if taken.iter().all(|t| *t) && seen.insert(import.to_owned()) {
                    let text = load(import)?;
                    expand_into(import, &text, defines, load, seen, out)?;
                }
            }
            (Some(word), _) if word.starts_with('#') => return fail("unknown directive"),
            _ => {
                if taken.iter().all(|t| *t) {
                    out.push_str(line);
                    out.push('\n');
                }
            }
        }
    }
    if taken.is_empty() { Ok(()) } else { Err(format!("{name}: #ifdef without #endif")) }
}
