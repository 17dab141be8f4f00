//! The input is a chat template and a conversation of one message a line.
#![no_main]

use concertina_formats::{ChatMessage, ChatTemplate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: init(), |data: &[u8]| {
    let [template, text] = concertina_fuzz::parts(data);
    let Ok(template) = std::str::from_utf8(template) else { return };
    let text = String::from_utf8_lossy(text);
    let messages: Vec<ChatMessage> = text
        .lines()
        .zip(["system", "user", "assistant"].iter().cycle())
        .map(|(content, role)| ChatMessage { role: role.to_string(), content: content.into() })
        .collect();
    concertina_fuzz::guarded(|| {
        if let Ok(template) = ChatTemplate::new(template, "<s>", "</s>") {
            let _ = template.render(&messages, true);
            let _ = template.render(&[], false);
        }
    });
});

fn init() {
    concertina_fuzz::expect_caught_panics();
    concertina_fuzz::write_seeds_if_asked("template");
}
