//! Chat templates: those of real models against prompts written by hand, and hostile ones.

use std::time::{Duration, Instant};

use concertina_formats::{ChatMessage, ChatTemplate, Error};

const SMOLLM2: &str = include_str!("data/smollm2.jinja");
const QWEN: &str = include_str!("data/qwen2.5.jinja");

fn conversation(turns: &[(&str, &str)]) -> Vec<ChatMessage> {
    turns.iter().map(|(role, content)| ChatMessage { role: (*role).into(), content: (*content).into() }).collect()
}

fn render(source: &str, turns: &[(&str, &str)], open_answer: bool) -> Result<String, Error> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(&conversation(turns), open_answer)
}

#[test]
fn smollm2_writes_chatml() {
    let found = render(SMOLLM2, &[("user", "Hi <there> & \"you\"")], true).unwrap();
    assert_eq!(
        found,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi <there> & \"you\"<|im_end|>\n<|im_start|>assistant\n"
    );
    let found = render(SMOLLM2, &[("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c")], false);
    assert_eq!(
        found.unwrap(),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n\
         <|im_start|>user\nc<|im_end|>\n"
    );
}

#[test]
fn qwen_writes_chatml_with_its_own_system_prompt() {
    let found = render(QWEN, &[("user", "a\n"), ("assistant", "b"), ("user", "{{ 7 * 7 }}")], true).unwrap();
    assert_eq!(
        found,
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n\
         <|im_start|>user\na\n<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\n{{ 7 * 7 }}<|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let found = render(QWEN, &[("system", "S"), ("user", "u")], false).unwrap();
    assert_eq!(found, "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu<|im_end|>\n");
}

#[test]
fn the_dialect_of_hugging_face() {
    // Blocks are trimmed, tokens are there, Python's methods work, tools are undefined, loops may break.
    let source = "{{ bos_token }}{% if tools is defined %}T{% endif %}\n\
                  {% for m in messages %}\n    {% if m.role == 'stop' %}{% break %}{% endif %}\n\
                  {{ m['content'].strip().upper() }}{{ eos_token }}\n    {% endfor %}\n{{ messages[0] | tojson }}\n";
    let found = render(source, &[("user", "  é<b>  "), ("stop", "never")], true).unwrap();
    assert_eq!(found, "<s>É<B></s>\n{\"role\": \"user\", \"content\": \"  é<b>  \"}");
    let date = "[{{ strftime_now('%d %b %Y') }}]{% set ns = namespace(x=1) %}{% set ns.x = ns.x + 1 %}{{ ns.x }}";
    assert_eq!(render(date, &[], true).unwrap(), "[]2");
    assert_eq!(render("{{ 'a\nb' | indent(2) }}", &[], true).unwrap(), "a\n  b");
}

#[test]
fn a_refusal_tells_the_reason() {
    let source = "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}ok";
    assert_eq!(render(source, &[("user", "x")], true).unwrap(), "ok");
    let error = render(source, &[("system", "x")], true).unwrap_err();
    assert!(matches!(&error, Error::Template(reason) if reason.contains("roles must alternate")), "{error}");
}

#[test]
fn hostile_templates_fail_soon() {
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
    let lists = format!("{{{{ {}{} }}}}", "[".repeat(100_000), "]".repeat(100_000));
    let long = "x".repeat(1 << 20);
    let nested = "{% if 1 %}".repeat(20_000);
    let filters = format!("{{{{ 'a'{} }}}}", " | upper".repeat(20_000));
    let unary = format!("{{{{ {}1 }}}}", "not ".repeat(50_000));
    let sums = format!("{{{{ 1{} }}}}", "+1".repeat(50_000));
    let comparisons = format!("{{{{ 1{} }}}}", " if 1 else 2".repeat(20_000));
    let attributes = format!("{{{{ messages{} }}}}", ".a".repeat(50_000));
    let calls = format!("{{{{ messages{} }}}}", "()".repeat(50_000));
    let braces = format!("{{% set a = {}1{} %}}", "{1:".repeat(20_000), "}".repeat(20_000));
    let elifs = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(15_000));
    let tricky = format!("{{{{ {{'}}}}':1}}{} }}}}", "|list".repeat(20_000));
    let loops = "{% for a in [1] %}".repeat(10_000);
    let sources = [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(1000000000) %}{% endfor %}",
        "{% for a in range(90000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{{ 'x' * 1000000000000 }}",
        "{{ 'x' * 90000000 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% for m in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% include 'chat' %}",
        "{% extends 'chat' %}",
        "{% import 'chat' as c %}{{ c }}",
        "{{ 'a' | indent(99999999999999) }}",
        "{{ '%99999999999d' | format(1) }}",
        "{{ '{:99999999999}'.format(1) }}",
        "{{ [1] * 1000000000000 }}",
        "{{ 1 / 0 }}{{ 1 // 0 }}{{ 1 % 0 }}",
        "{{ nothing.at.all }}",
        "{{ messages[0].content.no_such_method() }}",
        "{% for",
        "{{ 'x",
        "{% endfor %}",
        &deep,
        &lists,
        &long,
        &nested,
        &filters,
        &unary,
        &sums,
        &comparisons,
        &attributes,
        &calls,
        &braces,
        &elifs,
        &tricky,
        &loops,
    ];
    for source in sources {
        let start = Instant::now();
        let shown: String = source.chars().take(80).collect();
        let outcome = render(source, &[("user", "x")], true);
        let took = start.elapsed();
        assert!(matches!(outcome, Err(Error::Template(_))), "{shown}: {:.80?}", outcome);
        assert!(took < Duration::from_secs(5), "{shown}: {took:?}");
    }
}

#[test]
fn the_longest_chains_that_are_let_through_fit_a_small_stack() {
    let chains = [
        format!("{{{{ 'a'{} }}}}", " | upper".repeat(240)),
        format!("{{{{ 1{} }}}}", "+1".repeat(250)),
        format!("{{{{ {}1 }}}}", "not ".repeat(500)),
        format!("{{{{ 1{} }}}}", " if 1 else 2".repeat(120)),
        format!("{{{{ messages{} }}}}", "[0]".repeat(160)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(128)),
        format!("{}x{}", "{% if 1 %}".repeat(140), "{% endif %}".repeat(140)),
        format!("{{{{ {}1{} }}}}", "(".repeat(140), ")".repeat(140)),
        format!("{{{{ {}1{} }}}}", "[".repeat(140), "]".repeat(140)),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% for m in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
    ];
    for chain in chains {
        // Half of what a browser's worker gives.
        let thread = std::thread::Builder::new().stack_size(512 << 10);
        let shown: String = chain.chars().take(60).collect();
        let outcome = thread.spawn(move || drop(render(&chain, &[], true))).unwrap().join();
        assert!(outcome.is_ok(), "{shown}");
    }
}
