//! A call on a context, step by step, so that whoever drives it can make room, take turns or stop between the steps.

use std::ops::ControlFlow;

use concertina_formats::StreamState;
use concertina_shaders::Sampler;
use web_time::Instant;

use super::{Answer, Context, Engine, Finish, GenerateOptions};
use crate::forward::Tail;
use crate::{Error, Result};

/// An answer in the making.
pub(crate) struct Call {
    options: GenerateOptions,
    sampler: Sampler,
    start: Instant,
    answer: Answer,
    text: StreamState,
    prefilled: bool,
    /// Recordings that the device had made ready when the call began.
    prepared: u64,
}

impl Call {
    /// Check the request and put `tokens` behind those of the context.
    pub async fn begin(
        engine: &mut Engine,
        context: &mut Context,
        tokens: &[u32],
        options: &GenerateOptions,
    ) -> Result<Self> {
        let start = Instant::now();
        let sampler = options.sampling.sampler()?;
        let options = GenerateOptions { level: engine.level_run(options.level)?, ..options.clone() };
        engine.check_tokens(tokens)?;
        let total = context.tokens.len() + tokens.len();
        if total == 0 {
            return Err(Error::Invalid("the prompt is empty".into()));
        }
        engine.device().await?;
        let limit = engine.limit_of(context);
        if total > limit {
            return Err(Error::ContextFull { tokens: total, limit });
        }
        context.tokens.extend_from_slice(tokens);
        let answer = Answer {
            text: String::new(),
            tokens: Vec::new(),
            finish: Finish::Length,
            context_tokens: total,
            prefill_tokens: 0,
            level: options.level,
            ttft_ms: 0.0,
            tpot_ms: 0.0,
            compiled: false,
        };
        let (text, prepared) = (StreamState::new(engine.tokenizer()), engine.counters().prepared);
        Ok(Self { options, sampler, start, answer, text, prefilled: false, prepared })
    }

    /// Count time from an earlier moment.
    pub fn since(self, start: Instant) -> Self {
        Self { start, ..self }
    }

    /// Tokens whose keys and values the next step adds to the context's.
    pub fn next_tokens(&self, engine: &Engine, context: &Context) -> usize {
        let left = (context.tokens.len() - 1).saturating_sub(context.table.tokens());
        left.min(self.piece(engine)).max(1)
    }

    fn piece(&self, engine: &Engine) -> usize {
        let most = engine.device.as_ref().map_or(1, |device| device.forward.capacity().rows);
        if self.options.piece == 0 { most } else { self.options.piece.min(most) }
    }

    /// Bring keys and values of a piece of the tokens onto the device: of all but the last, which is run on its own.
    /// Returns whether there is more to do.
    pub async fn prefill(&mut self, engine: &mut Engine, context: &mut Context) -> Result<bool> {
        if self.options.max_tokens == 0 || self.prefilled {
            return Ok(false);
        }
        let last = self.answer.context_tokens - 1;
        let piece = self.piece(engine);
        if self.answer.prefill_tokens == 0 {
            engine.settle(context, self.options.level)?;
            // Its keys and values must not be there twice.
            context.drop_kv(last);
            self.answer.prefill_tokens = last - context.table.tokens() + 1;
        }
        let device = engine.device.as_mut().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        let left = last - context.table.tokens();
        if left > 0 {
            let n = piece.min(left);
            device.append(context, self.options.level, n, &[], Tail::None, self.options.collect_density).await?;
            if n < left {
                return Ok(true);
            }
        }
        device.forward.set_sampler(&mut device.backend, context.region(), &self.sampler, &context.tokens)?;
        self.prefilled = true;
        Ok(false)
    }

    /// Generate a token and hand on the text that it completes. Returns whether there is more to come.
    pub async fn decode(
        &mut self,
        engine: &mut Engine,
        context: &mut Context,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<bool> {
        if self.options.max_tokens == 0 {
            return Ok(false);
        }
        let limit = engine.limit_of(context);
        let device = engine.device.as_mut().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        // A sampled token is on the device already.
        let given = self.answer.tokens.is_empty().then(|| context.tokens[self.answer.context_tokens - 1]);
        let token = device.last_row(context, &self.options, given).await?;
        if self.answer.tokens.is_empty() {
            self.answer.ttft_ms = self.start.elapsed().as_secs_f64() * 1e3;
        }
        self.answer.compiled |= device.backend.counters().prepared != self.prepared;
        self.answer.tokens.push(token);
        context.tokens.push(token);
        let tokenizer = &engine.model.tokenizer;
        if tokenizer.is_end(token) && !self.options.ignore_end {
            self.answer.finish = Finish::Stop;
            return Ok(false);
        }
        let text = self.text.push(tokenizer, token)?;
        self.answer.text.push_str(&text);
        if !text.is_empty() && on_text(&text).is_break() {
            self.answer.finish = Finish::Cancelled;
            return Ok(false);
        }
        if self.answer.tokens.len() == self.options.max_tokens {
            return Ok(false);
        }
        if context.tokens.len() >= limit {
            self.answer.finish = Finish::ContextFull;
            return Ok(false);
        }
        Ok(true)
    }

    /// There is no room for more: the answer ends here, if it has begun.
    pub fn stop(&mut self) -> bool {
        self.answer.finish = Finish::ContextFull;
        !self.answer.tokens.is_empty()
    }

    /// The answer, as far as it came.
    pub fn finish(mut self, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Answer {
        let rest = self.text.finish();
        if !rest.is_empty() {
            self.answer.text.push_str(&rest);
            let _ = on_text(&rest);
        }
        if self.answer.tokens.len() > 1 {
            let decode_ms = self.start.elapsed().as_secs_f64() * 1e3 - self.answer.ttft_ms;
            self.answer.tpot_ms = decode_ms / (self.answer.tokens.len() - 1) as f64;
        }
        self.answer
    }
}
