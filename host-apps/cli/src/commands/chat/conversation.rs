//! What was said, and how much of it the context can hold.

use anyhow::{Result, bail};
use concertina::formats::{ChatMessage, Model};

/// The messages so far.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    system: Option<String>,
    /// A question and its answer in turn; the last one may be a question.
    turns: Vec<ChatMessage>,
}

/// A conversation as tokens, ready for the answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// Messages that were dropped from the beginning so that it fits.
    pub dropped: usize,
}

impl Conversation {
    pub fn new(system: Option<String>) -> Self {
        Self { system, turns: Vec::new() }
    }

    pub fn say(&mut self, role: &str, content: &str) {
        self.turns.push(ChatMessage { role: role.into(), content: content.into() });
    }

    /// The last message.
    pub fn last(&self) -> Option<&str> {
        self.turns.last().map(|turn| turn.content.as_str())
    }

    /// What the last message is instead.
    pub fn say_instead(&mut self, content: &str) {
        if let Some(last) = self.turns.last_mut() {
            last.content = content.into();
        }
    }

    /// Tokens as they would be if the last message were another.
    ///
    /// # Errors
    /// If the tokenizer or the template fails.
    pub fn tokens_instead(&self, model: &Model, content: &str) -> concertina::Result<Vec<u32>> {
        let mut other = self.clone();
        other.say_instead(content);
        other.tokens(model, 0)
    }

    /// Take the last message back.
    pub fn unsay(&mut self) {
        self.turns.pop();
    }

    pub fn clear(&mut self) {
        self.turns.clear();
    }

    /// Tokens of the conversation, at most `limit` with room for an answer of `answer` tokens. Where it does not fit, the
    /// oldest turns are dropped for good until a quarter of the context is free beyond that: so not every message from
    /// then on has to be computed from its beginning.
    pub fn prompt(&mut self, model: &Model, limit: usize, answer: usize) -> Result<Prompt> {
        let room = limit - answer.min(limit / 4);
        let mut prompt = Prompt { tokens: self.tokens(model, 0)?, dropped: 0 };
        let target = if prompt.tokens.len() > room { room - limit / 4 } else { room };
        while prompt.tokens.len() > target && self.turns.len() - prompt.dropped > 2 {
            prompt.dropped += 2;
            prompt.tokens = self.tokens(model, prompt.dropped)?;
        }
        let count = prompt.tokens.len();
        if count >= limit {
            bail!(
                "this message takes {count} tokens with what goes before it, and the context has room for {limit}: \
                 shorten it, start anew with /clear, or choose a larger --context"
            );
        }
        self.turns.drain(..prompt.dropped);
        Ok(prompt)
    }

    /// Tokens of all messages but the first `skip`.
    fn tokens(&self, model: &Model, skip: usize) -> concertina::Result<Vec<u32>> {
        let turns = &self.turns[skip..];
        let Some(template) = &model.chat else {
            let text: Vec<&str> = turns.iter().map(|turn| turn.content.as_str()).collect();
            return Ok(model.tokenizer.encode_prompt(&text.concat(), false)?);
        };
        let system = self.system.iter().map(|text| ChatMessage { role: "system".into(), content: text.clone() });
        let messages: Vec<ChatMessage> = system.chain(turns.iter().cloned()).collect();
        Ok(model.tokenizer.encode_prompt(&template.render(&messages, true)?, true)?)
    }
}

#[cfg(test)]
mod tests {
    use concertina::formats::{MemorySource, open_gguf, testing::TinyModel};

    use super::*;

    fn model(template: bool) -> Model {
        let mut tiny = TinyModel::new("llama");
        if !template {
            tiny.chat_template = None;
        }
        open_gguf(Box::new(MemorySource(tiny.gguf()))).unwrap()
    }

    fn talked(turns: usize) -> Conversation {
        let mut conversation = Conversation::new(Some("s".into()));
        for turn in 0..turns {
            conversation.say("user", &format!("question {turn}"));
            conversation.say("assistant", &format!("answer {turn}"));
        }
        conversation.say("user", "last");
        conversation
    }

    #[test]
    fn a_longer_conversation_begins_as_the_shorter_one() {
        let model = model(true);
        let short = talked(1).prompt(&model, 1000, 10).unwrap();
        let long = talked(2).prompt(&model, 1000, 10).unwrap();
        let common = short.tokens.iter().zip(&long.tokens).take_while(|(a, b)| a == b).count();
        // All but the last message and the opened answer.
        let tail = model.tokenizer.encode("last<|im_end|>\n<|im_start|>assistant\n", true).unwrap().len();
        assert!(common >= short.tokens.len() - tail, "{common} of {}", short.tokens.len());
        assert_eq!((short.dropped, long.dropped), (0, 0));
    }

    #[test]
    fn the_oldest_turns_give_way() {
        let model = model(true);
        let mut conversation = talked(10);
        let whole = conversation.clone().prompt(&model, 10_000, 10).unwrap().tokens.len();
        let prompt = conversation.prompt(&model, whole, 40).unwrap();
        assert!(prompt.dropped > 0 && prompt.dropped.is_multiple_of(2), "{}", prompt.dropped);
        assert!(prompt.tokens.len() <= whole - 40 - whole / 4, "room for more than one answer");
        let text = model.tokenizer.decode(&prompt.tokens).unwrap();
        assert!(text.starts_with("system\ns") && text.contains("last") && !text.contains("question 0"), "{text}");
        assert_eq!(conversation.prompt(&model, whole, 40).unwrap().dropped, 0, "dropped once, not again");
    }

    #[test]
    fn a_message_that_cannot_fit_is_refused() {
        let model = model(true);
        let mut conversation = talked(3);
        conversation.unsay();
        conversation.say("user", &"long ".repeat(200));
        let error = conversation.prompt(&model, 64, 10).unwrap_err().to_string();
        assert!(error.contains("room for 64") && error.contains("--context"), "{error}");
        assert_eq!(conversation.turns.len(), 7, "nothing is dropped for a message that does not fit");
        for limit in 0..8 {
            assert!(conversation.prompt(&model, limit, 10).is_err());
        }
    }

    #[test]
    fn a_message_that_is_shortened_leaves_the_rest_alone() {
        let model = model(true);
        let mut conversation = talked(2);
        let whole = conversation.prompt(&model, 1000, 10).unwrap().tokens;
        assert_eq!(conversation.tokens_instead(&model, "last").unwrap(), whole);
        let without = conversation.tokens_instead(&model, "").unwrap();
        assert!(without.len() < whole.len());
        let text = model.tokenizer.decode(&conversation.tokens_instead(&model, "short").unwrap()).unwrap();
        assert!(text.contains("question 1") && text.contains("answer 1") && text.contains("short"), "{text}");
        assert_eq!(conversation.prompt(&model, 1000, 10).unwrap().tokens, whole, "asking changes nothing");
        conversation.say_instead("short");
        let now = conversation.prompt(&model, 1000, 10).unwrap().tokens;
        assert_eq!(model.tokenizer.decode(&now).unwrap(), text);
    }

    #[test]
    fn without_a_template_text_goes_on() {
        let model = model(false);
        let mut conversation = Conversation::default();
        conversation.say("user", "one ");
        conversation.say("assistant", "two ");
        conversation.say("user", "three");
        let prompt = conversation.prompt(&model, 100, 10).unwrap();
        assert_eq!(model.tokenizer.decode(&prompt.tokens).unwrap(), "one two three");
    }
}
