//! What goes wrong is a value, and the next call works.

use std::cell::Cell;
use std::ops::ControlFlow;

use concertina::{Answer, Context, Engine, Error, Finish, GenerateOptions, Options, Restrictions, Result, Sampling};
use concertina_formats::testing::TinyModel;
use concertina_tests::system::{Deviation, SMALL_ARCHS, data_model, ids, load, options, tiny};
use pollster::block_on;

fn engine(options: Options) -> Engine {
    load(TinyModel::new("llama").gguf(), options)
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens, sampling: Sampling::greedy(), ignore_end: true, ..GenerateOptions::default() }
}

fn generate(engine: &mut Engine, context: &mut Context, tokens: &[u32], n: usize) -> Result<Answer> {
    block_on(engine.generate(context, tokens, &greedy(n), |_| ControlFlow::Continue(())))
}

#[test]
fn a_lost_device_is_an_error_and_the_next_call_has_a_new_one() {
    let mut engine = engine(options(None));
    let prompt = ids(30, 20);
    let mut fresh = engine.context().expect("a context");
    let expected = generate(&mut engine, &mut fresh, &prompt, 24).expect("an answer").tokens;
    drop(fresh);

    // Between two calls: the loss shows at the next call, which opens a new device by itself.
    let mut context = engine.context().expect("a context");
    let first = generate(&mut engine, &mut context, &prompt, 10).expect("an answer").tokens;
    engine.destroy_device();
    assert_eq!(context.tokens().len(), 40, "the context keeps its tokens");
    let rest = generate(&mut engine, &mut context, &[], 14).expect("a new device");
    assert_eq!([first, rest.tokens].concat(), expected, "the answer goes on as if nothing had been");
    assert_eq!(rest.prefill_tokens, 40, "keys and values were computed again");
    assert_eq!(&context.tokens()[..30], prompt);
}

#[test]
fn a_device_lost_in_the_middle_of_an_answer() {
    let mut engine = engine(options(None));
    let prompt = ids(30, 20);
    let mut fresh = engine.context().expect("a context");
    let expected = generate(&mut engine, &mut fresh, &prompt, 24).expect("an answer").tokens;
    let mut bystander = engine.context().expect("a context");
    generate(&mut engine, &mut bystander, &prompt, 5).expect("an answer");
    drop(fresh);

    let mut context = engine.context().expect("a context");
    let destroy = engine.destroyer().expect("a GPU");
    let pieces = Cell::new(0);
    let lost = block_on(engine.generate(&mut context, &prompt, &greedy(24), |_| {
        pieces.set(pieces.get() + 1);
        if pieces.get() == 3 {
            destroy();
        }
        ControlFlow::Continue(())
    }));
    let error = lost.expect_err("the device is gone");
    assert!(matches!(error, Error::DeviceLost(_)), "{error}");
    let done = context.tokens().len() - prompt.len();
    assert!((3..24).contains(&done), "what was generated before stays: {done}");
    assert_eq!(context.tokens()[30..], expected[..done]);
    assert_eq!(context.resident_tokens(), 0, "nothing on a lost device is trusted");
    let rest = generate(&mut engine, &mut context, &[], 24 - done).expect("a new device");
    assert_eq!(rest.tokens, expected[done..]);
    let other = generate(&mut engine, &mut bystander, &[], 19).expect("other contexts go on too");
    assert_eq!(other.tokens, expected[5..]);
    // Scoring survives a loss as well.
    engine.destroy_device();
    assert_eq!(block_on(engine.nll(&prompt, 100)).expect("a new device").len(), 29);
}

#[test]
fn absurd_sizes_are_cut_to_what_the_model_and_the_device_allow() {
    let mut engine = engine(Options {
        context_tokens: usize::MAX,
        contexts: usize::MAX,
        prefill_rows: usize::MAX,
        kv_budget_bytes: 64 << 20,
        ..options(None)
    });
    assert_eq!(engine.context_limit(), 256, "the model's own limit");
    let mut context = engine.context().expect("a context");
    generate(&mut engine, &mut context, &ids(200, 21), 4).expect("an answer");
    let nothing = Options { kv_budget_bytes: 0, ..options(None) };
    let error = block_on(Engine::load(data_model(TinyModel::new("llama").gguf()), nothing, &mut |_, _| {}));
    assert!(matches!(error.err(), Some(Error::Unsupported(_))), "no room for a single chunk");
}

#[test]
fn exhausted_device_memory_is_an_error() {
    for device_bytes in [0, 1 << 10, 64 << 10, 1 << 20] {
        let restrictions = Restrictions { device_bytes: Some(device_bytes), ..Restrictions::default() };
        let model = data_model(TinyModel::new("llama").gguf());
        let loaded = block_on(Engine::load(model, Options { restrictions, ..options(None) }, &mut |_, _| {}));
        let error = loaded.err().expect("too little memory");
        assert!(matches!(error, Error::OutOfMemory(_)), "{device_bytes} bytes: {error}");
    }
}

#[test]
fn exhausted_kv_memory_leaves_contexts_intact() {
    // Four chunks of 16 tokens: llama's two layers, two groups, 16 dimensions, f16.
    let chunk = 2 * (2 * 2 * 16 * 16 * 2);
    let mut engine = engine(Options { kv_budget_bytes: 4 * chunk, contexts: 2, ..options(None) });
    assert_eq!(engine.context_limit(), 64);
    let prompt = ids(30, 22);
    let mut first = engine.context().expect("a context");
    let answer = generate(&mut engine, &mut first, &prompt, 8).expect("an answer").tokens;
    let mut second = engine.context().expect("a context");
    assert!(matches!(engine.context(), Err(Error::Invalid(_))), "a third context");
    let error = generate(&mut engine, &mut second, &prompt, 8).expect_err("one chunk is left");
    assert!(matches!(error, Error::KvFull(_)), "{error}");
    assert_eq!(second.tokens(), prompt, "the tokens stay");
    // The first goes on: what the second took is free again.
    let error = generate(&mut engine, &mut first, &ids(60, 23), 1).expect_err("more than fits");
    assert!(matches!(error, Error::ContextFull { tokens: 98, limit: 64 }), "{error}");
    assert_eq!(first.tokens().len(), 38, "a request that does not fit changes nothing");
    let more = generate(&mut engine, &mut first, &[], 4).expect("the first context is usable");
    assert_eq!(more.prefill_tokens, 1, "and its keys and values are where they were");
    drop(first);
    assert_eq!(generate(&mut engine, &mut second, &[], 8).expect("there is room now").tokens, answer);
    let full = generate(&mut engine, &mut second, &[], 500).expect("an answer");
    assert_eq!((full.finish, second.tokens().len()), (Finish::ContextFull, 64));
}

/// Models whose every matrix takes several bindings of so many bytes.
fn models_in_parts() -> Vec<(TinyModel, u64)> {
    let wide = TinyModel { n_groups: 4, tied: false, ..TinyModel::new("llama") };
    let of = |arch: &'static str| TinyModel { arch, n_layers: TinyModel::new(arch).n_layers, ..wide.clone() };
    let q8 = TinyModel { dim: 256, ffn: 512, n_heads: 8, n_groups: 4, head_dim: 32, ..of("qwen2") };
    let q8 = q8.with_dtype(concertina_formats::DType::Q8_0);
    let mut all: Vec<(TinyModel, u64)> = SMALL_ARCHS.map(|arch| (of(arch), 8192)).into();
    all.push((q8, 8704));
    all
}

#[test]
fn matrices_over_the_binding_limit_are_bound_in_parts() {
    for (model, binding_bytes) in models_in_parts() {
        let bytes = model.gguf();
        let tokens = ids(16, 24);
        let mut whole = load(bytes.clone(), options(None));
        assert!(whole.matrix_parts().iter().all(|parts| *parts == 1));
        let restrictions = Restrictions { binding_bytes: Some(binding_bytes), ..Restrictions::default() };
        let mut parts = load(bytes, Options { restrictions, ..options(None) });
        let counts = parts.matrix_parts();
        assert!(counts.iter().all(|parts| *parts > 1), "{}: {counts:?} parts", model.arch);
        for (level, piece) in [(100, 0), (100, 1), (50, 0), (25, 1)] {
            let logits =
                |engine: &mut Engine| block_on(engine.logits(&tokens, &[0, 7, 15], level, piece)).expect("logits");
            let expected = logits(&mut whole);
            let deviation = Deviation::of(&logits(&mut parts), &expected);
            assert!(deviation.relative <= 1e-4, "{} at {level} %: {deviation}", model.arch);
        }
    }
}

#[test]
fn a_binding_limit_below_one_row_block_is_refused() {
    let restrictions = Restrictions { binding_bytes: Some(4096), ..Restrictions::default() };
    let model = data_model(tiny("llama").gguf());
    let loaded = block_on(Engine::load(model, Options { restrictions, ..options(None) }, &mut |_, _| {}));
    let error = loaded.err().expect("a row block takes 8192 bytes");
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
}

#[test]
fn an_answer_can_be_cancelled() {
    let mut engine = engine(options(None));
    let mut context = engine.context().expect("a context");
    let mut heard = String::new();
    let answer = block_on(engine.generate(&mut context, &ids(10, 25), &greedy(50), |text| {
        heard.push_str(text);
        if heard.len() >= 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }));
    let answer = answer.expect("an answer");
    assert_eq!(answer.finish, Finish::Cancelled);
    assert!(answer.tokens.len() < 50 && answer.text == heard);
    assert_eq!(context.tokens().len(), 10 + answer.tokens.len());
    assert_eq!(generate(&mut engine, &mut context, &[], 3).expect("it goes on").tokens.len(), 3);
}

#[test]
fn requests_that_make_no_sense_are_refused_and_change_nothing() {
    let mut engine = engine(options(None));
    let mut context = engine.context().expect("a context");
    let vocab = engine.model().spec.vocab as u32;
    let invalid = |result: Result<Answer>, what: &str| match result {
        Err(Error::Invalid(text)) => assert!(!text.is_empty()),
        other => panic!("{what}: {other:?}"),
    };
    invalid(generate(&mut engine, &mut context, &[], 4), "an empty prompt");
    invalid(generate(&mut engine, &mut context, &[1, vocab], 4), "a token past the vocabulary");
    let sampling = |change: fn(&mut Sampling)| {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        GenerateOptions { sampling, ..greedy(4) }
    };
    let cases = [
        ("level 0", GenerateOptions { level: 0, ..greedy(4) }),
        ("level 101", GenerateOptions { level: 101, ..greedy(4) }),
        ("temperature NaN", sampling(|s| s.temperature = f32::NAN)),
        ("temperature below 0", sampling(|s| s.temperature = -1.0)),
        ("temperature infinite", sampling(|s| s.temperature = f32::INFINITY)),
        ("top-p NaN", sampling(|s| s.top_p = f32::NAN)),
        ("top-p 0", sampling(|s| s.top_p = 0.0)),
        ("top-p above 1", sampling(|s| s.top_p = 1.5)),
        ("min-p NaN", sampling(|s| s.min_p = f32::NAN)),
        ("min-p above 1", sampling(|s| s.min_p = 2.0)),
        ("penalty NaN", sampling(|s| s.repetition_penalty = f32::NAN)),
        ("penalty 0", sampling(|s| s.repetition_penalty = 0.0)),
    ];
    for (what, how) in cases {
        invalid(block_on(engine.generate(&mut context, &[1, 2], &how, |_| ControlFlow::Continue(()))), what);
    }
    assert!(context.tokens().is_empty() && context.resident_tokens() == 0);
    for result in [
        block_on(engine.logits(&[1, 2], &[2], 100, 0)).err(),
        block_on(engine.logits(&[1, vocab], &[0], 100, 0)).err(),
        block_on(engine.logits(&[1, 2], &[1], 0, 0)).err(),
        block_on(engine.nll(&[1, 2, 3], 101)).err(),
        block_on(engine.nll_from(&[1, 2, 3], 0, 100)).err(),
    ] {
        assert!(matches!(result, Some(Error::Invalid(_))), "{result:?}");
    }
    let long = ids(300, 26);
    assert!(matches!(block_on(engine.nll(&long, 100)), Err(Error::ContextFull { .. })));
    assert_eq!(generate(&mut engine, &mut context, &[1, 2], 4).expect("all is well").tokens.len(), 4);
}

#[test]
fn files_that_are_no_models_are_refused_by_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = |path: &std::path::Path| block_on(Engine::open(path, options(None))).err().expect("an error");
    let missing = directory.path().join("missing.gguf");
    let error = open(&missing);
    assert!(matches!(error, Error::File { .. }) && error.to_string().contains("missing.gguf"), "{error}");
    let whole = TinyModel::new("llama").gguf();
    for (name, bytes) in [
        ("empty.gguf", &[][..]),
        ("text.gguf", &b"this is no model, but a text that is long enough for a header"[..]),
        ("header.gguf", &whole[..100]),
        ("truncated.gguf", &whole[..whole.len() - 1]),
        ("half.gguf", &whole[..whole.len() / 2]),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        let error = open(&path);
        let clear = error.to_string().len() > 10;
        assert!((matches!(error, Error::Format(_)) || name == "empty.gguf") && clear, "{name}: {error}");
    }
    let error = open(directory.path());
    assert!(error.to_string().contains("config.json"), "a directory without a model: {error}");
    let nobody = Options { adapter: Some("no such adapter".into()), ..options(None) };
    let error = block_on(Engine::load(data_model(whole), nobody, &mut |_, _| {})).err().expect("an error");
    assert!(matches!(&error, Error::NoAdapter(text) if text.contains("no such adapter")), "{error}");
}
