//! Packages that are right come back; those that are not are refused, by name, and never by a panic.

use super::*;
use crate::LayerUnits;

fn package() -> Package {
    let shape =
        Shape { layers: 3, dim: 8, heads: 4, head_dim: 4, groups: 2, neurons: 64, group_step: 1, neuron_step: 16 };
    let order = LayerOrder { groups: vec![1, 0], heads: vec![3, 2, 0, 1], neurons: (0..64).rev().collect() };
    let whole = LayerUnits { groups: 2, neurons: 64 };
    let cut = LayerUnits { groups: 1, neurons: 48 };
    let value = |i: usize| (i as f32 * 0.7).sin();
    let values = |n: usize| (0..n).map(value).collect::<Vec<f32>>();
    let adapter = |inputs: usize| Adapter::quantise(2, &values(2 * inputs), &values(16), &values(8));
    Package {
        model: ModelId { source_blake3: "aa".into(), permuted_blake3: "bb".into(), down: "Q4_1".into() },
        shape,
        criterion: "effect".into(),
        order: vec![order; 3],
        anchors: vec![0],
        levels: vec![
            SubModel { level: 50, layers: vec![whole, cut, cut] },
            SubModel { level: 100, layers: vec![whole; 3] },
        ],
        adapters: vec![LevelAdapters {
            level: 50,
            rank: 2,
            sites: vec![(1, Site::O, adapter(8)), (1, Site::Down, adapter(48)), (2, Site::Down, adapter(48))],
        }],
        report: Report { command: "elasticize".into(), seed: 1, ..Report::default() },
    }
}

#[test]
fn what_was_written_is_read() {
    let package = package();
    let again = Package::from_bytes(&package.to_bytes().unwrap()).unwrap();
    assert_eq!(again, package);
    assert_eq!(again.level(50).unwrap().layers[1].groups, 1);
    assert!(again.level(60).is_none());
    let adapters = again.adapters(50).unwrap();
    assert_eq!(adapters.get(1, Site::O).unwrap().inputs, 8);
    assert!(adapters.get(0, Site::O).is_none() && adapters.get(2, Site::O).is_none());
}

#[test]
fn bytes_are_close_to_the_numbers() {
    let values: Vec<f32> = (0..24).map(|i| (i as f32 - 11.5) * 0.01).collect();
    let adapter = Adapter::quantise(3, &values, &values, &values[..8]);
    assert_eq!((adapter.inputs, adapter.outputs, adapter.bytes()), (8, 8, 24 + 24 + 8 + 28));
    for (found, expected) in [(adapter.a_values(), &values[..]), (adapter.c_values(), &values[..8])] {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 5e-4));
    }
    let nothing = Adapter::quantise(1, &[0.0; 4], &[0.0; 4], &[0.0; 4]);
    assert_eq!(nothing.a_values(), [0.0; 4]);
}

/// The same package with one thing wrong, which must be named.
#[track_caller]
fn refused(named: &str, spoil: impl FnOnce(&mut Package)) {
    let mut package = package();
    spoil(&mut package);
    let error = package.to_bytes().unwrap_err().to_string();
    assert!(error.contains(named), "{error}");
}

#[test]
fn parts_that_do_not_fit_are_named() {
    refused("order of layer 1", |p| p.order[1].neurons[0] = 0);
    refused("order of layer 2", |p| p.order[2].groups = vec![0]);
    refused("order: 2 layers", |p| p.order.truncate(2));
    refused("anchors", |p| p.anchors = vec![1, 0]);
    refused("anchors", |p| p.anchors = vec![3]);
    refused("levels", |p| p.levels.truncate(1));
    refused("levels", |p| p.levels.clear());
    refused("levels", |p| p.levels[0].level = 100);
    refused("level 50", |p| p.levels[0].layers[1].neurons = 47);
    refused("level 50", |p| p.levels[0].layers[1].groups = 0);
    refused("level 50", |p| p.levels[0].layers[0].groups = 1);
    refused("level 100", |p| p.levels[1].layers[2].groups = 1);
    refused("level 50", |p| p.levels[0].layers.truncate(1));
    refused("adapters of level 60", |p| p.adapters[0].level = 60);
    refused("adapters of level 50", |p| p.adapters[0].rank = 3);
    refused("adapters of level 50", |p| p.adapters[0].sites.reverse());
    refused("adapters of level 50", |p| p.adapters[0].sites[0].2.a_scales[0] = f32::NAN);
    refused("adapters of level 50", |p| p.adapters[0].sites[2].0 = 3);
    refused("shape", |p| p.shape.heads = 3);
    refused("shape", |p| p.shape.neuron_step = 0);
}

#[test]
fn every_cut_and_every_flipped_byte_is_an_error_or_a_package() {
    let bytes = package().to_bytes().unwrap();
    for len in 0..bytes.len() {
        assert!(Package::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
    }
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut survivors = 0;
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= flip;
            // Never a panic. A code or a scale may change its value unseen; what follows is still a package.
            if let Ok(package) = Package::from_bytes(&spoilt) {
                assert!(package.check().is_ok());
                survivors += usize::from(at < header);
            }
        }
    }
    // In the header only texts and numbers of the report may change without a contradiction.
    assert!(survivors < header, "{survivors} of {header}");
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"GGUF", &[0xff; 64], b"\x02\0\0\0\0\0\0\0{}"] {
        assert!(Package::from_bytes(bytes).is_err());
    }
    let error = Package::from_bytes(b"\x02\0\0\0\0\0\0\0{}").unwrap_err().to_string();
    assert!(error.contains("metadata entry"), "{error}");
    let text = String::from_utf8_lossy(&package().to_bytes().unwrap()).into_owned();
    assert!(text.contains("\\\"version\\\":1"), "the head is JSON in JSON");
    let later = package().to_bytes().unwrap();
    let at = later.windows(13).position(|w| w == b"version\\\":1,\\").unwrap();
    let mut later = later;
    later[at + 10] = b'9';
    assert_eq!(Package::from_bytes(&later).unwrap_err().to_string(), "the package's version: 9, and 1 is read");
}
