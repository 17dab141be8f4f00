//! The params structs by name, and the comparison of their layout with what reflection finds.

use concertina_shaders as shaders;
use shaders::{Member, Params};

/// Layout of a struct in Rust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Its name, in Rust and in WGSL.
    pub name: &'static str,
    /// `(name, offset in bytes)` of each member.
    pub members: Vec<(&'static str, usize)>,
    /// Bytes.
    pub size: usize,
}

fn layout<P: Params>() -> Layout {
    Layout { name: P::NAME, members: P::MEMBERS.to_vec(), size: size_of::<P>() }
}

/// Every struct that Rust and WGSL share.
pub fn layouts() -> Vec<Layout> {
    vec![
        layout::<shaders::Step>(),
        layout::<shaders::EmbedParams>(),
        layout::<shaders::GatherParams>(),
        layout::<shaders::NormParams>(),
        layout::<shaders::MatmulParams>(),
        layout::<shaders::GluParams>(),
        layout::<shaders::AdapterParams>(),
        layout::<shaders::LayerNormParams>(),
        layout::<shaders::GeluParams>(),
        layout::<shaders::DenseParams>(),
        layout::<shaders::RopeParams>(),
        layout::<shaders::QuantParams>(),
        layout::<shaders::AttnParams>(),
        layout::<shaders::TokenParams>(),
        layout::<shaders::SampleParams>(),
        layout::<shaders::RoofParams>(),
        layout::<shaders::Sampler>(),
    ]
}

/// How the members of a WGSL struct differ from Rust's: other names, order, offsets, or sizes.
pub fn mismatch(rust: &Layout, wgsl: &[Member]) -> Option<String> {
    if rust.members.len() != wgsl.len() {
        return Some(format!("{}: {} members in Rust, {} in WGSL", rust.name, rust.members.len(), wgsl.len()));
    }
    let ends = rust.members.iter().skip(1).map(|(_, offset)| *offset).chain([rust.size]);
    for (((name, offset), end), member) in rust.members.iter().zip(ends).zip(wgsl) {
        let in_wgsl = (member.name, member.offset as usize, (member.offset + member.size) as usize);
        if (*name, *offset, end) != in_wgsl {
            return Some(format!(
                "{}: {:?} in Rust, {in_wgsl:?} in WGSL (name, first byte, end)",
                rust.name,
                (name, offset, end)
            ));
        }
    }
    None
}
