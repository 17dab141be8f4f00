//! The params structs of Rust and of WGSL have the same members at the same offsets.

use concertina_shaders::{Member, VARIANTS, Variant};
use concertina_tests::parity::{Layout, layouts, mismatch};

/// A struct of WGSL, by naga's own reflection.
struct Reflected {
    name: String,
    members: Vec<Member>,
    bytes: usize,
}

fn structs(variant: &Variant) -> Vec<Reflected> {
    let module = naga::front::wgsl::parse_str(variant.source).expect("the build validated it");
    let member = |m: &naga::StructMember| Member {
        name: m.name.clone().unwrap_or_default().leak(),
        offset: m.offset,
        size: module.types[m.ty].inner.size(module.to_ctx()),
    };
    let of = |ty: &naga::Type| {
        let naga::TypeInner::Struct { members, span } = &ty.inner else { return None };
        let name = ty.name.clone().unwrap_or_default();
        Some(Reflected { name, members: members.iter().map(member).collect(), bytes: *span as usize })
    };
    module.types.iter().filter_map(|(_, ty)| of(ty)).collect()
}

/// Everything that is wrong with a table of layouts.
fn violations(layouts: &[Layout]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    let find = |name: &str| layouts.iter().find(|layout| layout.name == name);
    for variant in VARIANTS {
        // What the build recorded.
        match find(variant.params) {
            None => wrong.push(format!("{}: no Rust struct {}", variant.name, variant.params)),
            Some(layout) => {
                wrong.extend(mismatch(layout, variant.members).map(|e| format!("{}: {e}", variant.name)));
            }
        }
        // What naga says here, of every shared struct: Step, Sampler and the params.
        let structs = structs(variant);
        for needed in ["Step", variant.params] {
            if !structs.iter().any(|found| found.name == needed) {
                wrong.push(format!("{}: no struct {needed} in the WGSL", variant.name));
            }
        }
        for found in &structs {
            let Some(layout) = find(&found.name) else { continue };
            seen.push(layout.name);
            wrong.extend(mismatch(layout, &found.members).map(|e| format!("{}: {e}", variant.name)));
            if found.bytes != layout.size {
                let (name, rust, wgsl) = (layout.name, layout.size, found.bytes);
                wrong.push(format!("{}: {name} has {rust} bytes in Rust, {wgsl} in WGSL", variant.name));
            }
        }
    }
    wrong.extend(layouts.iter().filter(|l| !seen.contains(&l.name)).map(|l| format!("{} is in no WGSL", l.name)));
    wrong
}

#[test]
fn rust_and_wgsl_agree_on_every_struct() {
    let wrong = violations(&layouts());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_planted_difference_is_found() {
    let plant = |name: &str, change: &dyn Fn(&mut Layout)| {
        let mut layouts = layouts();
        change(layouts.iter_mut().find(|layout| layout.name == name).expect("in the table"));
        violations(&layouts)
    };
    for layout in layouts() {
        let name = layout.name;
        let moved = plant(name, &|l| l.members[1].1 += 4);
        assert!(moved.iter().any(|e| e.contains(name)), "{name}: a moved member");
        let swapped = plant(name, &|l| {
            let (a, b) = (l.members[0].0, l.members[1].0);
            (l.members[0].0, l.members[1].0) = (b, a);
        });
        assert!(swapped.iter().any(|e| e.contains(name)), "{name}: two members of one size swapped");
        assert!(!plant(name, &|l| l.size += 16).is_empty(), "{name}: a longer struct");
        assert!(!plant(name, &|l| l.members.truncate(1)).is_empty(), "{name}: a member less");
        let renamed = plant(name, &|l| l.name = "Another");
        assert!(!renamed.is_empty(), "{name}: a struct that is nowhere");
    }
}
