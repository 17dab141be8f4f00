//! A sub-model is a prefix of the units: its logits are those of the CPU twins running the whole of a model in which the
//! units past the prefix were zeroed, and it runs from the same buffers.

use concertina::{Counters, Engine, LayerUnits, Options, SubModel};
use concertina_formats::DType;
use concertina_formats::testing::TinyModel;
use concertina_tests::system::{
    Deviation, cut_units, data_model, ids, load, note, options, real_model, relative, tiny,
};
use concertina_tests::system::{SMALL_ARCHS, Units};
use pollster::block_on;

const TOLERANCE: f64 = 1e-3;

/// The model's bytes without the units that `sub` does not keep.
fn without(bytes: &[u8], sub: &SubModel) -> Vec<u8> {
    let model = data_model(bytes.to_vec());
    let kept: Vec<Units> = sub.layers.iter().map(|kept| Units { groups: kept.groups, neurons: kept.neurons }).collect();
    let mut cut = bytes.to_vec();
    cut_units(&mut cut, &model, &kept);
    cut
}

/// Compare `sub` on the adapter with the zeroed model on the CPU twins; returns its logits too.
fn check(engine: &mut Engine, bytes: &[u8], name: &str, sub: &SubModel) -> (Deviation, Vec<Vec<f32>>) {
    let tokens = ids(40, 5);
    let positions = [0, 17, 39];
    // Three rows at once and then one after the other, so that both families of kernels run.
    let rows = block_on(engine.logits(&tokens, &positions, sub.level, 0)).expect("logits");
    let single = block_on(engine.logits(&tokens, &positions, sub.level, 1)).expect("logits");
    let mut twins = load(without(bytes, sub), options(Some("cpu")));
    let expected = block_on(twins.logits(&tokens, &positions, 100, 0)).expect("logits");
    let worst = Deviation::of(&rows, &expected).join(Deviation::of(&single, &expected));
    assert!(worst.relative <= TOLERANCE, "{name} {:?}: {worst}", sub.layers[0]);
    (worst, rows)
}

fn levels(model: &TinyModel, name: &str, levels: &[u32]) {
    let bytes = model.gguf();
    let mut engine = load(bytes.clone(), options(None));
    let mut worst = Deviation::default();
    let mut seen: Vec<(SubModel, Vec<Vec<f32>>)> = Vec::new();
    for level in levels {
        let sub = engine.sub_model(*level).expect("a level");
        let (deviation, rows) = check(&mut engine, &bytes, &format!("{name} at {level} %"), &sub);
        for (other, logits) in &seen {
            let apart = relative(&rows[2], &logits[2]);
            assert!(other.layers == sub.layers || apart > 0.02, "{name}: {level} % and {} % agree", other.level);
        }
        seen.push((sub, rows));
        worst = worst.join(deviation);
    }
    note(format!("{name} at {levels:?} %: {worst}"));
}

#[test]
fn levels_of_every_arch() {
    for arch in SMALL_ARCHS {
        levels(&tiny(arch), &format!("{arch} F32"), &[20, 40, 60, 80, 100]);
    }
}

#[test]
fn levels_of_quantised_models() {
    for dtype in [DType::F16, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0] {
        levels(&tiny("llama").with_dtype(dtype), &format!("llama {dtype:?}"), &[20, 60]);
    }
    levels(&tiny("qwen2").with_dtype(DType::Q8_0), "qwen2 Q8_0", &[20, 60]);
    levels(&tiny("gemma3").with_dtype(DType::Q4_1), "gemma3 Q4_1", &[20, 60]);
}

#[test]
fn levels_of_k_quants() {
    for (arch, dtype) in [("llama", DType::Q4_K), ("qwen2", DType::Q5_K), ("gemma3", DType::Q6_K)] {
        let model = TinyModel::new(arch).with_dtype(dtype);
        // One group fills a panel of O: 8 heads of 32.
        let model = TinyModel { n_heads: 32, n_groups: 4, ffn: 1280, ..model };
        levels(&model, &format!("{arch} {dtype:?}"), &[20, 60]);
    }
}

#[test]
fn odd_counts_that_differ_from_layer_to_layer() {
    for arch in SMALL_ARCHS {
        let bytes = tiny(arch).gguf();
        let mut engine = load(bytes.clone(), options(None));
        let cuts = [(1, 32), (3, 224), (5, 96)];
        let layers = engine.shapes().len();
        let kept = (0..layers).map(|i| LayerUnits { groups: cuts[i % 3].0, neurons: cuts[i % 3].1 }).collect();
        let sub = SubModel { level: 37, layers: kept };
        engine.set_sub_model(sub.clone()).expect("it fits");
        let (worst, _) = check(&mut engine, &bytes, arch, &sub);
        note(format!("{arch} with {:?}: {worst}", sub.layers));
    }
}

#[test]
fn halves_of_layers_are_left_out() {
    for arch in SMALL_ARCHS {
        let bytes = tiny(arch).gguf();
        let mut engine = load(bytes.clone(), options(None));
        let cuts = [(0, 96), (3, 0), (0, 0), (5, 320)];
        let layers = engine.shapes().len();
        let of = |layers: usize| (0..layers).map(|i| LayerUnits { groups: cuts[i % 4].0, neurons: cuts[i % 4].1 });
        let sub = SubModel { level: 37, layers: of(layers).collect() };
        engine.set_sub_model(sub.clone()).expect("it fits");
        let dispatches = |engine: &mut Engine, level| cost(engine, &[1, 2, 3], level).dispatches;
        let (whole, part) = (dispatches(&mut engine, 100), dispatches(&mut engine, 37));
        assert!(part < whole, "{arch}: {part} dispatches, {whole} with all layers");
        let (worst, _) = check(&mut engine, &bytes, arch, &sub);
        note(format!("{arch} with halves of {layers} layers left out: {part} of {whole} dispatches, {worst}"));
    }
}

#[test]
fn cuts_that_do_not_fit_are_refused() {
    let mut engine = load(tiny("llama").gguf(), options(None));
    let layers = engine.shapes().len();
    let of = |groups, neurons, layers| SubModel { level: 50, layers: vec![LayerUnits { groups, neurons }; layers] };
    for sub in [of(6, 32, layers), of(1, 33, layers), of(1, 352, layers), of(0, 33, layers), of(1, 32, 1)] {
        let error = engine.set_sub_model(sub.clone()).expect_err("it does not fit");
        assert!(matches!(error, concertina::Error::Invalid(_)), "{sub:?}: {error}");
    }
    engine.set_sub_model(of(5, 320, layers)).expect("all units are a sub-model too");
}

/// Counters of one scoring run at a level.
fn cost(engine: &mut Engine, tokens: &[u32], level: u32) -> Counters {
    let before = engine.counters();
    block_on(engine.logits(tokens, &[tokens.len() - 1], level, 0)).expect("logits");
    // What it asked of the device; time is the machine's.
    Counters { host_ns: 0, ..engine.counters().since(&before) }
}

/// Switching allocates nothing and writes no weight: the bytes written are those of any other run.
fn check_switching(engine: &mut Engine, name: &str, tokens: &[u32]) {
    cost(engine, tokens, 100);
    let steady = cost(engine, tokens, 100);
    assert_eq!((steady.buffers, steady.prepared), (0, 0), "{name}: a second run makes nothing");
    let first = cost(engine, tokens, 40);
    // Recording the layers anew takes a bind group a dispatch, and one buffer with the params of each.
    assert_eq!(
        (first.prepared, first.buffers, first.writes),
        (1, 1, steady.writes + 1),
        "{name}: one recording is made"
    );
    assert!(first.bind_groups > 0, "{name}: {first:?}");
    let params = first.written_bytes - steady.written_bytes;
    assert!(params <= 256 * first.bind_groups, "{name}: the first switch writes {params} bytes, more than params take");
    let made = Counters { prepared: 0, buffers: 0, bind_groups: 0, ..first };
    let made = Counters { writes: steady.writes, written_bytes: steady.written_bytes, ..made };
    assert_eq!(made, steady, "{name}: the first switch does nothing else that other runs do not");
    for level in [100, 40, 100] {
        assert_eq!(cost(engine, tokens, level), steady, "{name}: a later switch costs nothing at all");
    }
    note(format!("{name}: a switch allocates nothing and writes what every run does ({} bytes)", steady.written_bytes));
}

#[test]
fn switching_moves_no_weights() {
    check_switching(&mut load(tiny("llama").gguf(), options(None)), "tiny llama", &ids(40, 6));
}

#[test]
fn smollm2_at_60_percent() {
    let Some(path) = real_model("smollm2-135m-instruct-q4_1") else { return };
    let bytes = std::fs::read(&path).expect("a readable file");
    let small = |adapter| Options {
        context_tokens: 64,
        prefill_rows: 16,
        kv_budget_bytes: 8 << 20,
        exact: true,
        ..options(adapter)
    };
    let mut engine = block_on(Engine::open(&path, small(None))).expect("an engine");
    let sub = engine.sub_model(60).expect("a level");
    let directory = tempfile::tempdir().expect("a directory");
    let cut = directory.path().join("cut.gguf");
    std::fs::write(&cut, without(&bytes, &sub)).expect("a copy of the model");
    drop(bytes);
    let tokens: Vec<u32> = engine.tokenizer().encode_prompt("The tide turned, and with it", false).expect("tokens");
    let last = tokens.len() - 1;
    let rows = block_on(engine.logits(&tokens, &[0, last], 60, 0)).expect("logits");
    let whole = block_on(engine.logits(&tokens, &[0, last], 100, 0)).expect("logits");
    check_switching(&mut engine, "SmolLM2", &tokens);
    drop(engine);
    let mut twins = block_on(Engine::open(&cut, small(Some("cpu")))).expect("an engine");
    let expected = block_on(twins.logits(&tokens, &[0, last], 100, 0)).expect("logits");
    let worst = Deviation::of(&rows, &expected);
    note(format!("SmolLM2 at 60 % ({:?} a layer): {worst}", sub.layers[0]));
    assert!(worst.relative <= TOLERANCE, "{worst}");
    assert!(relative(&rows[1], &whole[1]) > 0.02, "the cut changes the logits");
}
