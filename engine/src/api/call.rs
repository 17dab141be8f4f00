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
    /// There is an answer, and not only a prompt to be read.
    generates: bool,
    prefilled: bool,
    /// The first token of the answer: it is sampled with the prompt's last piece.
    first: Option<u32>,
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
        let (generates, prefilled, first) = (options.max_tokens > 0, false, None);
        Ok(Self { options, sampler, start, answer, text, generates, prefilled, first, prepared })
    }

    /// Bring keys and values of all tokens but the last onto the device, and generate nothing.
    pub fn silent(self) -> Self {
        Self { generates: false, ..self }
    }

    /// Count time from an earlier moment.
    pub fn since(self, start: Instant) -> Self {
        Self { start, ..self }
    }

    /// Tokens whose keys and values the next step adds to the context's.
    pub fn next_tokens(&self, engine: &Engine, context: &Context) -> usize {
        let whole = context.tokens.len() - usize::from(!self.generates);
        whole.saturating_sub(context.table.tokens()).min(self.piece(engine))
    }

    fn piece(&self, engine: &Engine) -> usize {
        let most = engine.device.as_ref().map_or(1, |device| device.forward.capacity().rows);
        if self.options.piece == 0 { most } else { self.options.piece.min(most) }
    }

    /// Bring keys and values of a piece of the tokens onto the device; the last piece gives the answer's first token. Returns
    /// whether there is more to do.
    pub async fn prefill(&mut self, engine: &mut Engine, context: &mut Context) -> Result<bool> {
        if self.options.max_tokens == 0 || self.prefilled {
            return Ok(false);
        }
        if self.answer.prefill_tokens == 0 {
            engine.settle(context, self.options.level)?;
            // The last token's logits are wanted, so it is run whatever there is.
            let last = self.answer.context_tokens - 1;
            context.drop_kv(last);
            self.answer.prefill_tokens = last - context.table.tokens() + 1;
        }
        let left = self.answer.context_tokens - context.table.tokens();
        let (most, silent) = (self.piece(engine), self.next_tokens(engine, context));
        let device = engine.device.as_mut().ok_or_else(|| Error::DeviceLost("no device is open".into()))?;
        let n = if self.generates { device.piece_of(left, most) } else { silent };
        let (level, density) = (self.options.level, self.options.collect_density);
        if self.generates && n == left {
            device.forward.set_sampler(&mut device.backend, context.region(), &self.sampler, &context.tokens)?;
            let from = context.table.tokens();
            let tokens: Vec<Option<u32>> = context.tokens[from..].iter().copied().map(Some).collect();
            self.first = Some(device.sample(context, &self.options, &tokens).await?);
        } else if n > 0 {
            device.append(context, level, n, &[], Tail::None, density).await?;
        }
        self.prefilled = n + usize::from(!self.generates) >= left;
        Ok(!self.prefilled)
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
        let token = match self.first.take() {
            Some(token) => token,
            // The one before is on the device already.
            None => device.sample(context, &self.options, &[None]).await?,
        };
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
