//! Heads that are right come back; those that are not are refused, by name, and never by a panic.

use super::*;

fn heads() -> Heads {
    let encoder =
        EncoderId { source_blake3: "ab".repeat(32), bottom_layers: 3, dim: 32, heads: 4, ffn: 64, positions: 16 };
    let value = |i: usize| (i as f32 * 0.7).sin();
    let values = |n: usize| (0..n).map(value).collect::<Vec<f32>>();
    let dense = |rows: usize, cols: usize| {
        let block: Vec<u8> = [0x00, 0x3c].into_iter().chain((0..32).map(|i| i * 7)).collect();
        let blocks = block.repeat(rows * cols / 32);
        Dense { weight: Matrix { rows, cols, blocks }, bias: values(rows) }
    };
    let norm = || Norm { weight: values(32), bias: values(32) };
    let layer = || Layer {
        q: dense(32, 32),
        k: dense(32, 32),
        v: dense(32, 32),
        o: dense(32, 32),
        attn_norm: norm(),
        up: dense(64, 32),
        down: dense(32, 64),
        ffn_norm: norm(),
    };
    let linear = |rows: usize| Linear { weight: values(rows * 32), bias: values(rows) };
    Heads {
        encoder,
        model_blake3: "01".repeat(32),
        ttft_targets: vec![20, 60, 100],
        tpot_targets: vec![50, 100],
        prompt_levels: vec![40, 100],
        model_levels: vec![20, 50, 70, 100],
        score: ScoreHead { layer: layer(), out: linear(1) },
        decision: DecisionHead {
            layer: layer(),
            prompt: linear(2),
            model: linear(4),
            ttft: values(3 * 32),
            tpot: values(2 * 32),
        },
        report: Report { command: "heads".into(), seed: 1, ..Report::default() },
    }
}

#[test]
fn what_was_written_is_read() {
    let heads = heads();
    let again = Heads::from_bytes(&heads.to_bytes().unwrap()).unwrap();
    assert_eq!(again, heads);
}

/// The same heads with one thing wrong, which must be named.
#[track_caller]
fn refused(named: &str, spoil: impl FnOnce(&mut Heads)) {
    let mut heads = heads();
    spoil(&mut heads);
    let error = heads.to_bytes().unwrap_err().to_string();
    assert!(error.contains(named), "{error}");
}

#[test]
fn parts_that_do_not_fit_are_named() {
    refused("encoder", |h| h.encoder.heads = 5);
    refused("encoder", |h| h.encoder.dim = 48);
    refused("encoder", |h| h.encoder.positions = 2);
    refused("encoder", |h| h.encoder.bottom_layers = 0);
    refused("encoder.source_blake3", |h| h.encoder.source_blake3.truncate(63));
    refused("model_blake3", |h| h.model_blake3 = "XY".repeat(32));
    refused("ttft_targets", |h| h.ttft_targets = vec![60, 20, 100]);
    refused("tpot_targets", |h| h.tpot_targets = vec![50, 90]);
    refused("prompt_levels", |h| h.prompt_levels.clear());
    refused("model_levels", |h| h.model_levels[0] = 0);
    refused("decision.prompt", |h| h.prompt_levels = vec![20, 40, 100]);
    refused("decision.tpot", |h| h.tpot_targets = vec![50, 60, 100]);
    refused("score.layer.up", |h| h.score.layer.up.weight.rows = 65);
    refused("score.layer.q", |h| h.score.layer.q.weight.blocks.truncate(1));
    refused("decision.layer.down", |h| h.decision.layer.down.weight.blocks[1] = 0x7c);
    refused("decision.layer.o.bias", |h| h.decision.layer.o.bias[0] = f32::NAN);
    refused("score.layer.ffn_norm.weight", |h| h.score.layer.ffn_norm.weight[3] = f32::INFINITY);
    refused("decision.layer.attn_norm.bias", |h| h.decision.layer.attn_norm.bias.clear());
    refused("score.out.bias", |h| h.score.out.bias.push(0.0));
    refused("decision.ttft", |h| h.decision.ttft.truncate(5));
}

#[test]
fn every_cut_and_every_flipped_byte_is_an_error_or_heads() {
    let bytes = heads().to_bytes().unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for len in (0..header).chain((header..bytes.len()).step_by(61)) {
        assert!(Heads::from_bytes(&bytes[..len]).is_err(), "{len} bytes");
    }
    let mut survivors = 0;
    for at in 0..bytes.len() {
        // Every byte of the header in three ways; of the numbers, of which most are alike, the sign of each.
        let flips: &[u8] = if at < header { &[0x01, 0x80, 0xff] } else { &[0x80] };
        for flip in flips {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= flip;
            // Never a panic. A number may change its value unseen; what follows is still heads.
            if let Ok(heads) = Heads::from_bytes(&spoilt) {
                assert!(heads.check().is_ok());
                survivors += usize::from(at < header);
            }
        }
    }
    // In the header only hashes, texts and numbers of the report may change without a contradiction.
    assert!(survivors < header / 2, "{survivors} of {header}");
}

#[test]
fn other_files_are_refused() {
    for bytes in [&b""[..], b"GGUF", &[0xff; 64], b"\x02\0\0\0\0\0\0\0{}"] {
        assert!(Heads::from_bytes(bytes).is_err());
    }
    let mut later = heads().to_bytes().unwrap();
    let at = later.windows(13).position(|w| w == b"version\\\":1,\\").unwrap();
    later[at + 10] = b'9';
    assert_eq!(Heads::from_bytes(&later).unwrap_err().to_string(), "the heads file's version: 9, and 1 is read");
    // A tensor that nobody asked for.
    let bytes = heads().to_bytes().unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let text = std::str::from_utf8(&bytes[8..8 + header]).unwrap().trim_end();
    let end = bytes.len() - 8 - header;
    let more = format!(
        r#"{},"stray":{{"dtype":"U8","shape":[1],"data_offsets":[{end},{}]}}}}"#,
        &text[..text.len() - 1],
        end + 1
    );
    let mut spoilt = (more.len() as u64).to_le_bytes().to_vec();
    spoilt.extend(more.as_bytes());
    spoilt.extend(&bytes[8 + header..]);
    spoilt.push(0);
    let error = Heads::from_bytes(&spoilt).unwrap_err().to_string();
    assert!(error.contains("tensors: 41"), "{error}");
}
