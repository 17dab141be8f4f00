//! A prompt that is prefilled in pieces gives the same logits as in one.

use concertina::{Engine, Options};
use concertina_formats::DType;
use concertina_formats::testing::TinyModel;
use concertina_tests::system::{Deviation, SMALL_ARCHS, ids, load, note, options, real_model};
use pollster::block_on;

const PIECES: [usize; 4] = [1, 7, 16, 33];
const TOLERANCE: f64 = 1e-3;

/// Logits of the last of `tokens` and of some before it, in one piece and in pieces.
fn check(engine: &mut Engine, name: &str, tokens: &[u32]) {
    let last = tokens.len() - 1;
    let positions = [0, 15.min(last), 16.min(last), last / 2, last];
    let mut logits = |piece| block_on(engine.logits(tokens, &positions, 100, piece)).expect("logits");
    let whole = logits(0);
    let mut worst = Deviation::default();
    for piece in PIECES {
        let deviation = Deviation::of(&logits(piece), &whole);
        assert!(deviation.relative <= TOLERANCE, "{name} in pieces of {piece}: {deviation}");
        worst = worst.join(deviation);
    }
    note(format!("{name}, {} tokens in pieces of {PIECES:?}: {worst}", tokens.len()));
}

#[test]
fn tiny_models() {
    for arch in SMALL_ARCHS {
        for dtype in [DType::F32, DType::BF16, DType::Q4_1, DType::Q8_0, DType::Q4_K, DType::Q6_K] {
            let model = TinyModel::new(arch).with_dtype(dtype);
            let exact = dtype == DType::F32;
            let mut engine = load(model.gguf(), Options { exact, ..options(None) });
            check(&mut engine, &format!("{arch} {dtype:?}"), &ids(70, 3));
        }
    }
}

#[test]
fn a_batch_smaller_than_the_prompt() {
    let bytes = TinyModel::new("gemma3").gguf();
    let tokens = ids(100, 4);
    let logits = |prefill_rows| {
        let mut engine = load(bytes.clone(), Options { prefill_rows, ..options(None) });
        block_on(engine.logits(&tokens, &[99], 100, 0)).expect("logits")
    };
    let whole = logits(128);
    for rows in [1, 3, 40] {
        let deviation = Deviation::of(&logits(rows), &whole);
        assert!(deviation.relative <= TOLERANCE, "batches of {rows}: {deviation}");
    }
}

#[test]
fn smollm2() {
    real("smollm2-135m-instruct-q4_1");
}

#[test]
fn qwen25_coder_05b() {
    real("qwen2.5-coder-0.5b-instruct-q4_k_m");
}

#[test]
fn gemma3_270m() {
    real("gemma-3-270m-q4_k_m");
}

/// With f16 pages a key that lies between two halves may round either way, so pieces differ by more than with f32 ones.
fn real(name: &str) {
    let Some(path) = real_model(name) else { return };
    for exact in [true, false] {
        let mut engine = block_on(Engine::open(&path, Options { exact, ..options(None) })).expect("an engine");
        let text = "The lighthouse keeper counted the ships each evening, and wrote their names in a ledger that nobody \
                    would ever read. One winter the ledger was full, and since no ship had come for weeks he began to \
                    write about the weather, about the birds that rested on the railing, and at last about himself: a \
                    man of sixty who had never learned to swim.";
        let tokens = engine.tokenizer().encode_prompt(text, false).expect("tokens");
        let how = if exact { "f32 pages" } else { "f16 pages" };
        check(&mut engine, &format!("{name}, {how}"), &tokens[..tokens.len().min(70)]);
    }
}
