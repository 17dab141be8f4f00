//! Latency targets of calls on contexts: what a level would have to compute anew counts, and what a call appends may be
//! shortened.

use concertina_elastic::slo::{Decision, Target};
use concertina_formats::Model;
use concertina_kv::store::ContextId;
use concertina_kv::{CHUNK_TOKENS, Widths};

use super::Service;
use super::turns::turn;
use crate::Result;
use crate::api::{Plan, Planner, Prompt, Stay, Wish};

/// Text that a call appends to a context.
#[derive(Clone, Copy)]
pub enum Appended<'a> {
    /// A user's message, with what the chat template writes around it.
    Message(&'a str),
    /// Text as it is.
    Text(&'a str),
}

impl Appended<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Message(text) | Self::Text(text) => text,
        }
    }
}

impl Service {
    /// Which level a call gets that appends `tokens` tokens: the highest whose predicted times meet the wish, the restore and
    /// chunks that this level cannot read counted; where none does, the one that misses by least. Returns the target in
    /// milliseconds too.
    ///
    /// # Errors
    /// As [`Service::generate`].
    pub async fn plan(
        &mut self,
        app: &str,
        context: ContextId,
        tokens: usize,
        planner: &Planner,
        wish: &Wish,
    ) -> Result<(Decision, Target)> {
        let (before_ms, stale) = self.before(app, context, planner).await?;
        let before = self.entry(context.0)?.context.tokens().len();
        Ok(planner.plan_level(tokens, before, &stale, before_ms, wish))
    }

    /// Which level a call gets that appends a text, and how much of the text. Only the text itself is shortened: what the
    /// context holds, a system prompt above all, and what the template writes around a message stay, and so does what
    /// `stay` says. [`Plan::tokens`] are to be appended then, and what is left is what the context remembers.
    ///
    /// # Errors
    /// As [`Service::generate`]; if the tokenizer or the template fails.
    pub async fn plan_prompt(
        &mut self,
        app: &str,
        context: ContextId,
        appended: Appended<'_>,
        stay: Stay<'_>,
        planner: &Planner,
        wish: &Wish,
    ) -> Result<Plan> {
        let (before_ms, stale) = self.before(app, context, planner).await?;
        let given = self.entry(context.0)?.context.tokens().to_vec();
        let tokens = |model: &Model, text: &str| match appended {
            Appended::Message(_) => turn(model, &given, text),
            Appended::Text(_) if given.is_empty() => Ok(model.tokenizer.encode_prompt(text, false)?),
            Appended::Text(_) => Ok(model.tokenizer.encode(text, false)?),
        };
        let (text, before) = (appended.text(), given.len());
        let prompt = Prompt { text, stay, tokens: &tokens, context: before, stale: &stale, before_ms };
        planner.plan(&mut self.engine, &prompt, wish).await
    }

    /// Compile what a call needs that appends `tokens` tokens at `level`: see [`Engine::make_ready`]. Returns the milliseconds
    /// that it took.
    ///
    /// # Errors
    /// As [`Service::generate`].
    ///
    /// [`Engine::make_ready`]: crate::Engine::make_ready
    pub async fn make_ready(
        &mut self,
        app: &str,
        context: ContextId,
        level: u32,
        tokens: usize,
        piece: usize,
    ) -> Result<f64> {
        self.recover().await?;
        self.load(app, context).await?;
        self.share(context.0)?;
        // As the chunks will be once they are back.
        let state = self.manager.state(context.0);
        let widths: Widths = state.into_iter().filter_map(|(memory, disk)| memory.or(disk)).collect();
        self.engine.ready_for(level, tokens, piece, widths, self.wants_density()).await
    }

    /// Milliseconds that the restore should take, and tokens that each level would compute anew.
    async fn before(&mut self, app: &str, context: ContextId, planner: &Planner) -> Result<(f64, Vec<(u32, usize)>)> {
        self.recover().await?;
        self.load(app, context).await?;
        let key = context.0;
        self.share(key)?;
        let before_ms = self.manager.restore_s(key, &self.rates) * 1e3;
        let levels: Vec<u32> = planner.profile().levels.iter().map(|cost| cost.level).collect();
        let mut stale = Vec::with_capacity(levels.len());
        for level in levels {
            stale.push((level, self.stale_tokens(key, self.engine.level_run(level)?)?));
        }
        Ok((before_ms, stale))
    }

    /// Tokens of the chunks that a call at `level` would compute anew.
    fn stale_tokens(&mut self, key: u64, level: u32) -> Result<usize> {
        let readable = self.readable_by(level);
        let entry = self.entry(key)?;
        let stale = entry.levels.iter().filter(|wrote| !readable.contains(wrote)).count();
        Ok((stale * CHUNK_TOKENS).min(entry.context.tokens().len()))
    }
}
