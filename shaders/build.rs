//! Expands every variant of every kernel, validates it with naga, and writes the table of variants with the bindings
//! that reflection found. A shader that does not validate fails the build.

#[path = "src/preprocess.rs"]
mod preprocess;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const FORMATS: [&str; 11] = ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k"];

#[derive(serde::Deserialize)]
struct Catalogue {
    kernel: BTreeMap<String, Kernel>,
}

#[derive(serde::Deserialize)]
struct Kernel {
    params: String,
    formats: Option<Formats>,
    #[serde(default)]
    features: Vec<String>,
    needs: Option<String>,
    #[serde(default)]
    subgroup: u32,
    #[serde(default)]
    subgroup_most: u32,
    group: [u32; 2],
    file: Option<String>,
    role: Option<Role>,
    #[serde(default)]
    inexact: bool,
    #[serde(default = "yes")]
    plain: bool,
    #[serde(default)]
    tiles: BTreeMap<String, Tile>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    Matrix,
    Ceiling,
}

#[derive(serde::Deserialize)]
struct Tile {
    group: [u32; 2],
    formats: Option<Formats>,
    constants: BTreeMap<String, u32>,
}

/// "all", or a list of names.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Formats {
    All(String),
    Some(Vec<String>),
}

impl Formats {
    fn names(&self, of: &str) -> Vec<&'static str> {
        let known = |name: &String| {
            let found = FORMATS.iter().find(|f| *f == name);
            *found.unwrap_or_else(|| panic!("variants.toml: {of}: there is no format {name:?}"))
        };
        match self {
            Formats::All(all) if all == "all" => FORMATS.to_vec(),
            Formats::All(other) => panic!("variants.toml: {of}: formats = {other:?} is neither \"all\" nor a list"),
            Formats::Some(names) => names.iter().map(known).collect(),
        }
    }
}

/// What makes one variant of a kernel.
struct Form<'a> {
    format: Option<&'a str>,
    feature: Option<&'a str>,
    tile: Option<(&'a str, &'a Tile)>,
}

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap());
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    println!("cargo:rerun-if-changed=wgsl");
    println!("cargo:rerun-if-changed=variants.toml");
    println!("cargo:rerun-if-changed=src/preprocess.rs");
    let catalogue: Catalogue =
        toml::from_str(&fs::read_to_string(root.join("variants.toml")).unwrap()).expect("variants.toml");

    let mut table = String::from("/// Every variant of every kernel.\npub static VARIANTS: &[Variant] = &[\n");
    let mut hash = Fnv::default();
    for (name, kernel) in &catalogue.kernel {
        let formats: Vec<Option<&str>> = match &kernel.formats {
            None => vec![None],
            Some(formats) => formats.names(name).into_iter().map(Some).collect(),
        };
        let plain = kernel.needs.as_deref();
        let features =
            std::iter::once(plain).filter(|_| kernel.plain).chain(kernel.features.iter().map(|f| Some(f.as_str())));
        for feature in features {
            for format in &formats {
                let has = |tile: &&(&String, &Tile)| match (&tile.1.formats, format) {
                    (Some(formats), Some(format)) => formats.names(name).contains(format),
                    _ => true,
                };
                let all: Vec<(&String, &Tile)> = kernel.tiles.iter().collect();
                let tiles = all.iter().filter(has).map(|(name, tile)| Some((name.as_str(), *tile)));
                for tile in std::iter::once(None).chain(tiles) {
                    let form = Form { format: *format, feature, tile };
                    emit(&root, &out, name, kernel, &form, &mut table, &mut hash);
                }
            }
        }
    }
    hash.add(&table);
    table.push_str("];\n");
    writeln!(table, "/// Changes when any variant does: what was measured with other sources does not hold.").unwrap();
    writeln!(table, "pub const SOURCES_HASH: u64 = {:#x};", hash.0).unwrap();
    fs::write(out.join("variants.rs"), table).unwrap();
}

fn emit(root: &Path, out: &Path, name: &str, kernel: &Kernel, form: &Form<'_>, table: &mut String, hash: &mut Fnv) {
    let Form { format, feature, tile } = *form;
    let features: Vec<&str> = feature.map(|f| f.split('+').collect()).unwrap_or_default();
    // What a kernel needs in every form is no part of the names.
    let shown = |f: &&str| *f != "quantised" && kernel.needs.as_deref() != Some(*f);
    let variant = [Some(name), format]
        .into_iter()
        .flatten()
        .chain(features.iter().copied().filter(shown))
        .chain(tile.map(|t| t.0))
        .collect::<Vec<_>>()
        .join(".");
    let mut defines = BTreeSet::new();
    defines.extend(format.map(|f| format!("W_{}", f.to_uppercase())));
    defines.extend(features.iter().map(|f| f.to_uppercase()));
    let coop = feature == Some("coop");
    if coop {
        defines.insert("F16".into()); // of which cooperative matrices are made
    }

    let wgsl = root.join("wgsl");
    let stem = kernel.file.as_deref().unwrap_or(name);
    let text = fs::read_to_string(wgsl.join(format!("{stem}.wgsl"))).unwrap_or_else(|e| panic!("{stem}.wgsl: {e}"));
    let mut load = |import: &str| {
        fs::read_to_string(wgsl.join(format!("{import}.wgsl"))).map_err(|e| format!("#import {import}: {e}"))
    };
    let source = preprocess::expand(&text, &defines, &mut load).unwrap_or_else(|e| panic!("{variant}: {e}"));

    let module =
        naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{variant}: {}", e.emit_to_string(&source)));
    let mut validator =
        naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
    validator.validate(&module).unwrap_or_else(|e| panic!("{variant}: {}", e.emit_to_string(&source)));
    let entry = module
        .entry_points
        .iter()
        .find(|e| e.name == *name)
        .unwrap_or_else(|| panic!("{variant}: no entry point named {name}"));

    let constants: Vec<(&str, u32)> =
        tile.iter().flat_map(|(_, t)| &t.constants).map(|(name, value)| (name.as_str(), *value)).collect();
    for (constant, _) in &constants {
        let known = module.overrides.iter().any(|(_, o)| o.name.as_deref() == Some(constant));
        assert!(known, "{variant}: the WGSL has no override named {constant}");
    }
    hash.add(&source);
    let file = format!("{variant}.wgsl");
    fs::write(out.join(&file), &source).unwrap();
    let has = |name: &str| features.contains(&name);
    let subgroups = has("subgroups") || coop;
    let format = format.map_or("None".into(), |f| format!("Some(WeightFormat::{})", f.to_uppercase()));
    write!(
        table,
        "Variant {{ kernel: {name:?}, name: {variant:?}, file: {stem:?}, role: Role::{}, inexact: {}, constants: &{constants:?}, \
         format: {format}, subgroups: {}, f16: {}, coop: {coop}, pages: {:?}, min_subgroup: {}, max_subgroup: {}, workgroup: {:?}, group: {:?}, \
         params: {:?}, defines: &{:?}, source: include_str!(concat!(env!(\"OUT_DIR\"), \"/{file}\")),\n  members: &[{}],\n  bindings: &[{}],\n  overrides: &[{}] }},\n",
        kernel.role.map_or("Other".into(), |role| format!("{role:?}")),
        kernel.inexact,
        subgroups,
        has("f16") || coop,
        features.iter().copied().filter(|f| f.starts_with("kv")).collect::<Vec<_>>().join("+"),
        if subgroups { kernel.subgroup } else { 0 },
        if subgroups { kernel.subgroup_most } else { 0 },
        entry.workgroup_size,
        tile.map_or(kernel.group, |(_, t)| t.group),
        kernel.params,
        defines.iter().collect::<Vec<_>>(),
        members(&module, "params"),
        bindings(&module, &variant),
        overrides(&module, &variant),
    )
    .unwrap();
}

/// The hash of Fowler, Noll and Vo: whether a cache is stale needs no more than that.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, text: &str) {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// The members of the uniform struct that is bound as `global`.
fn members(module: &naga::Module, global: &str) -> String {
    let Some((_, var)) = module.global_variables.iter().find(|(_, v)| v.name.as_deref() == Some(global)) else {
        return String::new();
    };
    let naga::TypeInner::Struct { members, .. } = &module.types[var.ty].inner else {
        panic!("{global} is no struct");
    };
    let mut text = String::new();
    for member in members {
        let size = module.types[member.ty].inner.size(module.to_ctx());
        write!(
            text,
            "Member {{ name: {:?}, offset: {}, size: {size} }}, ",
            member.name.as_deref().unwrap_or(""),
            member.offset
        )
        .unwrap();
    }
    text
}

/// The `override` constants that are named like a member of the params, in capitals. The others are numbers of a tile.
fn overrides(module: &naga::Module, variant: &str) -> String {
    let members = members(module, "params");
    let mut text = String::new();
    for (_, constant) in module.overrides.iter() {
        let name = constant.name.as_deref().unwrap_or("");
        let member = name.to_lowercase();
        if !members.contains(&format!("name: {member:?}")) {
            continue;
        }
        assert!(
            module.types[constant.ty].inner == naga::TypeInner::Scalar(naga::Scalar::U32),
            "{variant}: override {name} is no u32"
        );
        write!(text, "Override {{ name: {name:?}, member: {member:?} }}, ").unwrap();
    }
    text
}

/// The bindings of group 0, in order and without gaps.
fn bindings(module: &naga::Module, variant: &str) -> String {
    let mut found: Vec<(u32, String)> = module
        .global_variables
        .iter()
        .filter_map(|(_, var)| {
            let binding = var.binding.as_ref()?;
            assert_eq!(binding.group, 0, "{variant}: only group 0 is used");
            let kind = match var.space {
                naga::AddressSpace::Uniform => "Uniform",
                naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => "ReadWrite",
                naga::AddressSpace::Storage { .. } => "ReadOnly",
                other => panic!("{variant}: binding in {other:?}"),
            };
            let name = var.name.as_deref().unwrap_or("");
            Some((binding.binding, format!("Binding {{ name: {name:?}, kind: BindingKind::{kind} }}, ")))
        })
        .collect();
    found.sort();
    for (want, (got, text)) in found.iter().enumerate() {
        assert_eq!(*got as usize, want, "{variant}: binding numbers have a gap before {text}");
    }
    let storage = found.iter().filter(|(_, t)| !t.contains("Uniform")).count();
    assert!(
        storage <= 10, // `step` among them
        "{variant}: {storage} storage buffers; browsers grant 10"
    );
    found.into_iter().map(|(_, text)| text).collect()
}
