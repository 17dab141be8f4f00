//! Chunks that were brought to narrower widths: the GPU agrees with the CPU twins, wider is closer, a model with biases on its
//! keys keeps its answers at 4 bits, and widths may change chunk by chunk.

use std::ops::ControlFlow;

use concertina::{Engine, GenerateOptions, Options, Sampling, Width};
use concertina_tests::system::{Deviation, SMALL_ARCHS, ids, load, note, options, real_model, relative, tiny};
use pollster::block_on;

/// Pieces of one chunk, so that all but the current one are narrow.
const PIECE: usize = 16;

fn at(adapter: Option<&str>, kv_width: Width) -> Options {
    Options { kv_width, ..options(adapter) }
}

#[test]
fn agree_with_the_cpu_twins() {
    let tokens = ids(90, 11);
    let positions = [20, 47, 89];
    for arch in SMALL_ARCHS {
        let logits = |options| {
            let mut engine = load(tiny(arch).gguf(), options);
            block_on(engine.logits(&tokens, &positions, 100, PIECE)).expect("logits")
        };
        let whole = logits(at(None, Width::W16));
        let mut last = 0.0;
        for width in [Width::W8, Width::W4, Width::W2] {
            let (gpu, twins) = (logits(at(None, width)), logits(at(Some("cpu"), width)));
            let (off, lost) = (Deviation::of(&gpu, &twins), Deviation::of(&gpu, &whole));
            note(format!("{arch} at {} bits: from the twins {off}; from 16 bits {lost}", width.bits()));
            // An element that lies between two steps may round either way.
            assert!(off.relative < 0.2 * lost.relative + 1e-3, "{arch} at {width:?}: {off}");
            assert!(lost.relative > last, "{arch}: {width:?} loses no more than a wider one");
            last = lost.relative;
        }
    }
}

/// Some chunks on request; the others stay.
#[test]
fn change_chunk_by_chunk() {
    let tokens = ids(81, 5);
    // Sealed chunks go to 8 bits; that one in a thousand would go to 4 makes 4 a width that there may be.
    let mut engine = load(tiny("qwen2").gguf(), Options { kv_narrower: 0.001, ..at(None, Width::W8) });
    // They do with the token after the prompt.
    let how = GenerateOptions { max_tokens: 2, sampling: Sampling::greedy(), ignore_end: true, ..Default::default() };
    let mut context = engine.context().expect("a context");
    block_on(engine.generate(&mut context, &tokens, &how, |_| ControlFlow::Continue(()))).expect("an answer");
    // Chunk 5 is not full, and will be widened; chunk 9 is not there.
    let wanted = [(0, Width::W4), (2, Width::W4), (3, Width::W8), (5, Width::W4), (9, Width::W4)];
    assert_eq!(block_on(engine.requantise(&mut context, &wanted)).expect("nothing fails"), 3);
    assert_eq!(context.chunk_widths()[5], Width::W4);
    assert_eq!(
        block_on(engine.requantise(&mut context, &wanted)).expect("nothing fails"),
        0,
        "they are narrow already"
    );
    let answer = block_on(engine.generate(&mut context, &[3], &how, |_| ControlFlow::Continue(()))).expect("an answer");
    assert_eq!(answer.prefill_tokens, 2, "the context was kept");
    assert_eq!(context.chunk_widths()[5], Width::W16, "it was continued");
}

#[test]
fn smollm2() {
    real("smollm2-135m-instruct-q4_1");
}

#[test]
fn qwen25_coder_05b() {
    real("qwen2.5-coder-0.5b-instruct-q4_k_m");
}

/// Without their centres taken off, 4-bit keys of Qwen2.5 put its logits off by more than half.
fn real(name: &str) {
    let Some(path) = real_model(name) else { return };
    let text = "The lighthouse keeper counted the ships each evening, and wrote their names in a ledger that nobody would \
                ever read. One winter the ledger was full, and since no ship had come for weeks he began to write about \
                the weather, about the birds that rested on the railing, and at last about himself: a man of sixty.";
    let mut rows = Vec::new();
    for width in [Width::W16, Width::W8, Width::W4] {
        let mut engine = block_on(Engine::open(&path, at(None, width))).expect("an engine");
        let tokens = engine.tokenizer().encode_prompt(text, false).expect("tokens");
        let row = block_on(engine.logits(&tokens[..64], &[63], 100, PIECE)).expect("logits").remove(0);
        rows.push(row);
    }
    let (eight, four) = (relative(&rows[1], &rows[0]), relative(&rows[2], &rows[0]));
    note(format!("{name}: 8 bits off by {eight:.1e}, 4 bits by {four:.1e}"));
    assert!(eight < 0.03 && four < 0.25, "{name}: 8 bits off by {eight}, 4 bits by {four}");
}
