//! Calls with latency targets: nothing is compiled in a call's time, what a call appends to a context may be shortened and the
//! rest stays, and what is replaced is freed.

use std::ops::ControlFlow;
use std::sync::Arc;

use concertina::elastic::prompt::words;
use concertina::elastic::slo::{Hints, Restriction, Target, Words};
use concertina::kv::store::MemoryMedium;
use concertina::native::blake3_of;
use concertina::service::{Appended, Policy, Service};
use concertina::{EncoderUse, Engine, Options, Planner, Stay, Wish};
use concertina_formats::testing::TinyBert;
use concertina_tests::system::{by, encoder, greedy, ids, load, options, serve, store, tiny, untrained_heads};
use pollster::block_on;

const MESSAGE: &str = "The meeting is on Monday at nine, in the room behind the kitchen, and whoever comes late brings cake \
    for all the others, which was decided last week when nobody was on time.";

fn tiny_engine(options: Options) -> Engine {
    load(tiny("llama").gguf(), options)
}

fn add_encoder(engine: &mut Engine) {
    let bert = TinyBert { positions: 64, ..TinyBert::default() };
    let bottom = encoder(&bert.files());
    let path = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(path.path(), &bert.files()["model.safetensors"]).expect("written");
    let heads = untrained_heads(&bottom, &blake3_of(path.path()).expect("a hash"), 3, 7);
    block_on(engine.load_encoder(bottom, heads)).expect("an encoder");
}

fn stay(words: &dyn Fn(usize) -> bool) -> Stay<'_> {
    Stay { words, examples: false }
}

fn prompt_level(percent: u32) -> Wish {
    Wish { only: Restriction { prompt: Some(percent), level: None }, ..Wish::default() }
}

#[test]
fn what_a_call_needs_is_compiled_before_it() {
    let prompt = ids(140, 1);
    let mut cold = tiny_engine(options(None));
    let mut context = cold.context().expect("a context");
    let go_on = |_: &str| ControlFlow::Continue(());
    let answer = block_on(cold.generate(&mut context, &prompt, &greedy(4), go_on)).expect("an answer");
    assert!(answer.compiled, "the first call of all compiles");
    context.truncate(0);
    let more = block_on(cold.generate(&mut context, &prompt, &greedy(4), go_on)).expect("an answer");
    assert!(!more.compiled, "the second one of its kind does not");
    drop(context);

    // One context is all there is: it lends its place to the scratch.
    let mut engine = tiny_engine(Options { contexts: 1, ..options(None) });
    let mut context = engine.context().expect("a context");
    for (level, tokens) in [(100, &prompt[..]), (40, &prompt[..20]), (40, &prompt[..1])] {
        let took = block_on(engine.make_ready(&mut context, level, tokens.len(), 0)).expect("a device");
        let again = block_on(engine.make_ready(&mut context, level, tokens.len(), 0)).expect("a device");
        assert!(took >= 0.0 && again == 0.0, "level {level}: {took} and {again} ms");
        let before = engine.counters().pipelines;
        let how = concertina::GenerateOptions { level, ..greedy(4) };
        let done = block_on(engine.generate(&mut context, tokens, &how, go_on)).expect("an answer");
        assert!(!done.compiled, "level {level}, {} tokens", tokens.len());
        assert_eq!(engine.counters().pipelines, before, "level {level}");
        if level == 100 {
            assert_eq!(done.tokens, answer.tokens, "the scratch leaves nothing behind");
        }
    }
}

#[test]
fn a_planner_learns_from_calls_but_not_from_compiling() {
    let mut engine = tiny_engine(options(None));
    let mut planner = block_on(Planner::open(&mut engine, None)).expect("a planner");
    assert!(planner.profile().is_sound(), "{:?}", planner.profile());
    assert_eq!(planner.profile().levels.len(), 5, "fifths, where there is no table");
    let mut context = engine.context().expect("a context");
    let answer = block_on(engine.generate(&mut context, &ids(60, 1), &greedy(4), |_| ControlFlow::Continue(())))
        .expect("an answer");
    let before = planner.profile().clone();
    let said = planner.predict(100, 60, 0);
    let slow = concertina::Answer { ttft_ms: 1.3 * said.0, tpot_ms: 1.3 * said.1, compiled: true, ..answer };
    planner.observe(&slow, 0.0);
    assert_eq!(planner.profile(), &before);
    planner.observe(&concertina::Answer { compiled: false, ..slow }, 0.0);
    let now = planner.predict(100, 60, 0);
    assert!(now.0 > said.0 && now.1 > said.1, "{said:?} became {now:?}");
}

#[test]
fn what_is_appended_is_shortened_and_nothing_else() {
    let medium = Arc::new(MemoryMedium::new());
    let mut service: Service = serve(store(&medium, 1), by(Policy::Ours), options(None), tiny_engine);
    add_encoder(service.engine_mut());
    let mut planner = block_on(Planner::open(service.engine_mut(), None)).expect("a planner");
    let id =
        block_on(service.create("mail", Some("You are brief and you never mention the cake."))).expect("a context");
    let system = block_on(service.tokens("mail", id)).expect("tokens");
    let all = words(MESSAGE).len();

    // The whole of it where nothing is asked for.
    let plan = block_on(service.plan_prompt(
        "mail",
        id,
        Appended::Message(MESSAGE),
        Stay::NOTHING,
        &planner,
        &Wish { target: Target { ttft_ms: Some(1e9), tpot_ms: None }, ..Wish::default() },
    ))
    .expect("a plan");
    let turn = block_on(service.turn("mail", id, MESSAGE)).expect("tokens");
    assert_eq!((plan.tokens, plan.text.as_str(), plan.kept_words), (turn.clone(), MESSAGE, all));
    assert_eq!(plan.kept_tokens, plan.prompt_tokens);

    // Three fifths of the words, the first three of all among those.
    let marked = |word: usize| word < 3;
    let wish = prompt_level(60);
    let shorter = block_on(service.plan_prompt("mail", id, Appended::Message(MESSAGE), stay(&marked), &planner, &wish));
    let plan = shorter.expect("a plan");
    assert_eq!((plan.encoder, plan.words), (EncoderUse::Used, all));
    assert_eq!(plan.kept_words, (all * 60).div_ceil(100));
    assert!(plan.text.starts_with("The meeting is"), "{}", plan.text);
    assert!(plan.kept_tokens < plan.prompt_tokens && plan.prompt_tokens < turn.len(), "{plan:?}");
    // What the template writes around a message is there, whole.
    assert_eq!(plan.tokens, block_on(service.turn("mail", id, &plan.text)).expect("tokens"));

    // Where the last words beside those are better, they cost nothing to find.
    let of = |worth: f64| vec![(40, worth), (100, 0.0)];
    planner.set_hints(Hints { before_what_stays: of(-2.0), last_before_what_stays: of(-1.0), ..Hints::prior() });
    let fewer = block_on(service.plan_prompt(
        "mail",
        id,
        Appended::Message(MESSAGE),
        stay(&marked),
        &planner,
        &prompt_level(40),
    ));
    let fewer = fewer.expect("a plan");
    assert_eq!((fewer.encoder, fewer.decision.words), (EncoderUse::Aside, Words::Last));
    assert!(
        fewer.text.starts_with("The meeting is") && fewer.text.ends_with("when nobody was on time."),
        "{}",
        fewer.text
    );

    // Where more than that must stay there is nothing to choose among.
    let (most, fifth) = (|word: usize| word < 14, prompt_level(20));
    let least = block_on(service.plan_prompt("mail", id, Appended::Message(MESSAGE), stay(&most), &planner, &fifth));
    let least = least.expect("a plan");
    assert_eq!((least.encoder, least.kept_words, least.decision.pair.prompt), (EncoderUse::Aside, 14, 20));
    assert_eq!(least.text.split_whitespace().count(), 14);
    assert!(MESSAGE.starts_with(least.text.trim_end()), "{}", least.text);

    // That is what the context holds then.
    block_on(service.make_ready("mail", id, 100, plan.tokens.len(), 0)).expect("a device");
    let served = block_on(service.generate("mail", id, &plan.tokens, &greedy(3), |_| ControlFlow::Continue(())));
    let answer = served.expect("an answer").answer;
    assert!(!answer.compiled, "kernels were made ready before");
    let now = block_on(service.tokens("mail", id)).expect("tokens");
    assert_eq!(now, [&system[..], &plan.tokens, &answer.tokens].concat());

    // Text as it is has no template at all.
    let plan = block_on(service.plan_prompt("mail", id, Appended::Text(MESSAGE), stay(&marked), &planner, &wish));
    let plan = plan.expect("a plan");
    let text = service.engine().tokenizer().encode(&plan.text, false).expect("tokens");
    assert_eq!(plan.tokens, text);
    // Too short to choose among its words.
    let plan = block_on(service.plan_prompt("mail", id, Appended::Text("Only this."), Stay::NOTHING, &planner, &wish));
    let plan = plan.expect("a plan");
    assert_eq!((plan.text.as_str(), plan.decision.pair.prompt), ("Only this.", 100));
    block_on(service.close()).expect("closed");
}

#[test]
fn without_an_encoder_only_what_the_caller_lets_go_is_shortened() {
    let medium = Arc::new(MemoryMedium::new());
    let mut service: Service = serve(store(&medium, 1), by(Policy::Ours), options(None), tiny_engine);
    let planner = block_on(Planner::open(service.engine_mut(), None)).expect("a planner");
    let id = block_on(service.create("mail", None)).expect("a context");
    let wish = prompt_level(40);
    let mut plan = |keep: &dyn Fn(usize) -> bool| {
        block_on(service.plan_prompt("mail", id, Appended::Text(MESSAGE), stay(keep), &planner, &wish)).expect("a plan")
    };
    let whole = plan(&|_| false);
    assert_eq!((whole.text.as_str(), whole.decision.pair.prompt, whole.encoder), (MESSAGE, 100, EncoderUse::None));
    let last = plan(&|word| word < 3);
    assert_eq!((last.decision.words, last.encoder), (Words::Last, EncoderUse::None));
    assert!(
        last.text.starts_with("The meeting is") && last.text.ends_with("when nobody was on time."),
        "{}",
        last.text
    );
    // What is predicted is what the tokens take that are run, however long the words are that stay.
    let wish = prompt_level(0);
    let bare =
        block_on(service.plan_prompt("mail", id, Appended::Text(MESSAGE), stay(&|word| word < 3), &planner, &wish));
    for plan in [last, bare.expect("a plan")] {
        let said = planner.predict(plan.decision.pair.level, plan.tokens.len(), 0);
        assert!((plan.decision.ttft_ms - said.0).abs() < 1e-9, "{} of {} tokens", plan.text, plan.tokens.len());
    }
    block_on(service.close()).expect("closed");
}

#[test]
fn a_lower_level_is_not_charged_for_what_it_can_read() {
    let medium = Arc::new(MemoryMedium::new());
    let mut service: Service = serve(store(&medium, 1), by(Policy::Ours), options(None), tiny_engine);
    let planner = block_on(Planner::open(service.engine_mut(), None)).expect("a planner");
    let id = block_on(service.create("mail", None)).expect("a context");
    block_on(service.append("mail", id, &ids(150, 3), 40)).expect("written at 40 %");
    let at = |service: &mut Service, level: u32| {
        let wish = Wish { only: Restriction { prompt: None, level: Some(level) }, ..Wish::default() };
        block_on(service.plan("mail", id, 16, &planner, &wish)).expect("a plan").0.ttft_ms
    };
    let (low, high) = (at(&mut service, 40), at(&mut service, 100));
    let fresh = planner.predict(100, 16 + 150, 0).0;
    assert!(high > low && high > 0.9 * fresh, "40 %: {low} ms, 100 %: {high} ms, all of it anew: {fresh} ms");
    block_on(service.close()).expect("closed");
}
