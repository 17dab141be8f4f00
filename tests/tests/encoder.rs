//! The encoder in the engine: what it says against an independent forward pass in f64, windows, lost devices, memory.

use concertina::native::{blake3_of, open_encoder};
use concertina::{Encoded, Engine, Error, GenerateOptions, Target};
use concertina_formats::testing::TinyBert;
use concertina_tests::system::{
    Deviation, Expected, encoder, expected, ids, load, note, options, real_encoder, tiny, untrained_heads,
};
use futures::FutureExt;
use pollster::block_on;
use std::ops::ControlFlow;

/// ‖d‖ / ‖ref‖ of scores and levels, where the reference has the same numbers as weights: rounding in f32.
const ROUNDING: f64 = 2e-5;
/// Where the reference's bottom is that of the file, in f32, and the engine's is Q8_0.
const STORED: f64 = 2e-2;

const TEXT: &str = "  The quick fox is quickly quick.\n\nNo answer:\tthe fox, the fox and 狐 \u{1}\u{1} end ";

fn tiny_engine(adapter: Option<&str>) -> Engine {
    load(tiny("llama").gguf(), options(adapter))
}

fn tiny_hash(tiny: &TinyBert) -> String {
    let path = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(path.path(), &tiny.files()["model.safetensors"]).expect("written");
    blake3_of(path.path()).expect("a hash")
}

/// An engine with a tiny model and a tiny encoder.
fn with_encoder(adapter: Option<&str>, bert: &TinyBert) -> Engine {
    let mut engine = tiny_engine(adapter);
    let bottom = encoder(&bert.files());
    let heads = untrained_heads(&bottom, &tiny_hash(bert), 3, 7);
    block_on(engine.load_encoder(bottom, heads)).expect("an encoder");
    engine
}

/// Scores of words that have some, and levels.
fn deviation(found: &Encoded, expected: &Expected) -> Deviation {
    let seen = |scores: &[f32]| -> Vec<f32> { scores.iter().copied().filter(|s| s.is_finite()).collect() };
    let levels = [found.decision.prompt.clone(), found.decision.model.clone()].concat();
    let (scores, wanted) = (seen(&found.scores), seen(&expected.scores));
    Deviation::default().max(&levels, &expected.levels).max(&scores, &wanted)
}

#[test]
fn a_tiny_encoder_agrees_with_f64() {
    // Heads of 16 and of 64 dimensions; the text takes three windows of the smaller.
    for bert in [TinyBert::default(), TinyBert { dim: 128, heads: 2, ffn: 160, positions: 64, ..TinyBert::default() }] {
        let bottom = encoder(&bert.files());
        let heads = untrained_heads(&bottom, &tiny_hash(&bert), 3, 7);
        for adapter in [Some("cpu"), None] {
            let mut engine = with_encoder(adapter, &bert);
            for (target, numbers) in [
                (Target::NONE, (4, 5)),
                (Target { ttft_percent: 59, tpot_percent: 60 }, (1, 1)),
                (Target { ttft_percent: 1, tpot_percent: 1 }, (0, 0)),
            ] {
                let found = block_on(engine.encode(TEXT, target)).expect("an answer");
                let wanted = expected(&bottom, &heads, true, TEXT, numbers.0, numbers.1);
                assert_eq!(found.scores.len(), TEXT.split_whitespace().count());
                assert_eq!(found.windows, found.pieces.div_ceil(bert.positions - 2));
                let unseen = found.words.iter().zip(&found.scores).filter(|(_, s)| s.is_infinite());
                let unseen: Vec<&str> = unseen.map(|(w, _)| &TEXT[w.text.clone()]).collect();
                assert_eq!(unseen, ["\u{1}\u{1}"], "control characters are no pieces");
                let close = deviation(&found, &wanted);
                assert!(close.relative < ROUNDING, "{} {target:?}: {close}", engine.adapter());
            }
            let nothing = block_on(engine.encode(" \n", Target::NONE)).expect("an answer");
            assert!(nothing.scores.is_empty() && nothing.decision.prompt.iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn minilm_agrees_with_f64() {
    let Some(path) = real_encoder() else { return };
    let hash = blake3_of(&path.join("model.safetensors")).expect("a hash");
    let open = || open_encoder(&path).expect("an encoder");
    let bottom = open();
    let heads = untrained_heads(&bottom, &hash, 3, 11);
    let mut engine = tiny_engine(None);
    block_on(engine.load_encoder(open(), heads.clone())).expect("an encoder");
    let sentence = "Passage: The Amazon basin, which drains about 40% of South America, was named by Francisco de Orellana \
                    after a battle in 1542.\nQuestion: who named it?\nAnswer:";
    let long = sentence.repeat(4);
    for text in [sentence, &long] {
        let found = block_on(engine.encode(text, Target { ttft_percent: 40, tpot_percent: 70 })).expect("an answer");
        let (same, whole) = [true, false].map(|rounded| expected(&bottom, &heads, rounded, text, 1, 2)).into();
        let (rounding, stored) = (deviation(&found, &same), deviation(&found, &whole));
        note(format!(
            "minilm on {}: {} pieces in {} windows, {:.0} ms; the same weights {rounding}; weights of the file {stored}",
            engine.adapter(),
            found.pieces,
            found.windows,
            1e3 * found.time.as_secs_f64()
        ));
        assert!(rounding.relative < ROUNDING, "{rounding}");
        assert!(stored.relative < STORED, "{stored}");
    }
}

#[test]
fn a_lost_device_gets_its_encoder_back() {
    let mut engine = with_encoder(None, &TinyBert::default());
    let before = block_on(engine.encode(TEXT, Target::NONE)).expect("an answer");
    engine.destroy_device();
    let after = block_on(engine.encode(TEXT, Target::NONE)).expect("an answer on a new device");
    assert_eq!((before.scores, before.decision), (after.scores, after.decision));
}

#[test]
fn an_encoder_leaves_the_model_alone_and_gives_its_memory_back() {
    let mut engine = tiny_engine(None);
    let tokens = ids(40, 3);
    let options = GenerateOptions { max_tokens: 6, ..GenerateOptions::default() };
    let answer = |engine: &mut Engine| {
        let mut context = engine.context().expect("a context");
        let text = block_on(engine.generate(&mut context, &tokens, &options, |_| ControlFlow::Continue(())));
        text.expect("an answer").text
    };
    let alone = answer(&mut engine);
    let bytes = engine.counters().buffer_bytes;
    assert!(block_on(engine.encode(TEXT, Target::NONE)).is_err(), "there is no encoder yet");
    let tiny = TinyBert::default();
    for _ in 0..3 {
        let bottom = encoder(&tiny.files());
        let heads = untrained_heads(&bottom, &tiny_hash(&tiny), 3, 7);
        block_on(engine.load_encoder(bottom, heads)).expect("an encoder");
    }
    assert!(engine.heads().is_some() && engine.counters().buffer_bytes > bytes);
    let first = block_on(engine.encode(TEXT, Target::NONE)).expect("an answer");
    assert_eq!(answer(&mut engine), alone, "the model answers as before");
    let again = block_on(engine.encode(TEXT, Target::NONE)).expect("an answer");
    assert_eq!(first.scores, again.scores);
    engine.unload_encoder();
    assert_eq!(engine.counters().buffer_bytes, bytes, "all of its memory is free");
    assert!(engine.heads().is_none() && block_on(engine.encode(TEXT, Target::NONE)).is_err());
    assert_eq!(answer(&mut engine), alone);
}

#[test]
fn a_load_that_fails_or_is_dropped_leaves_nothing_behind() {
    let tiny_bert = TinyBert::default();
    let (hash, bottom) = (tiny_hash(&tiny_bert), || encoder(&tiny_bert.files()));
    let heads = untrained_heads(&bottom(), &hash, 3, 7);
    let bytes = tiny_engine(None).counters().buffer_bytes;
    let mut tight = options(None);
    tight.restrictions.device_bytes = Some(bytes + 100_000);
    let mut engine = load(tiny("llama").gguf(), tight);
    let error = block_on(engine.load_encoder(bottom(), heads.clone())).expect_err("no room");
    assert!(matches!(error, Error::OutOfMemory(_)), "{error}");
    assert_eq!(engine.counters().buffer_bytes, bytes);

    let mut engine = tiny_engine(None);
    let finished = engine.load_encoder(bottom(), heads.clone()).now_or_never();
    assert!(finished.is_none(), "it waits for the device at least once");
    assert!(engine.counters().buffer_bytes > bytes && engine.heads().is_none());
    block_on(engine.load_encoder(bottom(), heads)).expect("an encoder");
    block_on(engine.encode(TEXT, Target::NONE)).expect("an answer");
    engine.unload_encoder();
    assert_eq!(engine.counters().buffer_bytes, bytes);
}

#[test]
fn reading_a_text_is_one_submission_a_window() {
    let mut engine = with_encoder(None, &TinyBert { positions: 512, ..TinyBert::default() });
    block_on(engine.encode(TEXT, Target::NONE)).expect("an answer");
    let before = engine.counters();
    block_on(engine.encode(TEXT, Target::NONE)).expect("an answer");
    let made = engine.counters().since(&before);
    assert_eq!((made.submits, made.prepared, made.pipelines, made.bind_groups), (1, 0, 0, 0), "{made:?}");
}

#[test]
fn heads_of_another_encoder_are_refused() {
    let tiny = TinyBert::default();
    let hash = tiny_hash(&tiny);
    let mut engine = tiny_engine(Some("cpu"));
    let bottom = || encoder(&tiny.files());
    let mut refused = |heads, named: &str| {
        let error = block_on(engine.load_encoder(bottom(), heads)).expect_err("refused").to_string();
        assert!(error.contains(named), "{error}");
        assert!(engine.heads().is_none());
    };
    refused(untrained_heads(&bottom(), &"a".repeat(64), 3, 7), "another file");
    let mut deep = untrained_heads(&bottom(), &hash, 3, 7);
    deep.encoder.bottom_layers = 5;
    refused(deep, "another encoder");
    let other = TinyBert { dim: 96, heads: 6, ..TinyBert::default() };
    refused(untrained_heads(&encoder(&other.files()), &hash, 3, 7), "another encoder");
    let mut long = untrained_heads(&bottom(), &hash, 3, 7);
    long.encoder.positions = 25;
    refused(long, "another encoder");
}
