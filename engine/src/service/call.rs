//! A call on a context: lock, restore, run, return.

use std::ops::ControlFlow;

use concertina_kv::store::ContextId;
use concertina_kv::{CHUNK_TOKENS, Width};
use web_time::Instant;

use super::keeper::kept;
use super::{Served, Service, Switch};
use crate::api::{Call, yield_now};
use crate::{Answer, Error, GenerateOptions, Result};

/// Chunks of others that go at once where there is no room to make a context's own narrower.
const AT_ONCE: usize = 8;

/// Hears of an answer as it grows, and may cancel it.
type OnText<'a> = &'a mut dyn FnMut(&str) -> ControlFlow<()>;

impl Service {
    /// Append `tokens` to a context and generate from there; `on_text` gets the text as it grows and may cancel. What was
    /// said is durable when this returns.
    ///
    /// The future may be dropped where it waits: between pieces of restore and prefill, and between tokens. The context is
    /// then as it was before the call, as it is after an error.
    ///
    /// # Errors
    /// [`Error::Store`] for a context that the app has not, or where the disk is full or fails; [`Error::OverBudget`] where
    /// the context does not fit the budget of memory; otherwise as [`crate::Engine::generate`].
    pub async fn generate(
        &mut self,
        app: &str,
        context: ContextId,
        tokens: &[u32],
        options: &GenerateOptions,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Served> {
        self.call(app, context, tokens, options, Some(&mut on_text)).await
    }

    /// Append `tokens` to a context. Keys and values of all but the last are computed.
    ///
    /// # Errors
    /// As [`Service::generate`].
    pub async fn append(&mut self, app: &str, context: ContextId, tokens: &[u32], level: u32) -> Result<Served> {
        let options = GenerateOptions { max_tokens: 1, level, ..GenerateOptions::default() };
        self.call(app, context, tokens, &options, None).await
    }

    /// Bring a context back before it is called.
    ///
    /// # Errors
    /// As [`Service::generate`].
    pub async fn prewarm(&mut self, app: &str, context: ContextId, level: u32) -> Result<Switch> {
        let start = Instant::now();
        let key = self.begin(app, context, level).await?;
        let restored = self.prewarm_entered(key, start).await;
        self.returned(restored).await
    }

    /// Negative log-likelihood, in nats, of each of `tokens`, given the context and those before; the first of an empty
    /// context is given nothing and has none. With `keep` they stay in the context, else it is as before.
    ///
    /// # Errors
    /// As [`Service::generate`].
    pub async fn score(
        &mut self,
        app: &str,
        context: ContextId,
        tokens: &[u32],
        level: u32,
        keep: bool,
    ) -> Result<Vec<f32>> {
        let key = self.begin(app, context, level).await?;
        let scored = self.score_entered(key, &[(tokens, 0)], level, keep).await;
        Ok(self.returned(scored).await?.pop().unwrap_or_default())
    }

    /// As [`Service::score`], for several texts that might follow the context, which stays as it is; of each its tokens from
    /// the number beside it on are scored. What texts that come one after the other share before that is computed once.
    ///
    /// # Errors
    /// As [`Service::generate`].
    pub async fn score_each(
        &mut self,
        app: &str,
        context: ContextId,
        texts: &[(&[u32], usize)],
        level: u32,
    ) -> Result<Vec<Vec<f32>>> {
        let key = self.begin(app, context, level).await?;
        let scored = self.score_entered(key, texts, level, false).await;
        self.returned(scored).await
    }

    async fn call(
        &mut self,
        app: &str,
        context: ContextId,
        tokens: &[u32],
        options: &GenerateOptions,
        on_text: Option<OnText<'_>>,
    ) -> Result<Served> {
        let start = Instant::now();
        let key = self.begin(app, context, options.level).await?;
        let served = self.run(key, tokens, options, on_text, start).await;
        self.returned(served).await
    }

    /// Find the context, as it is after all calls before.
    async fn begin(&mut self, app: &str, context: ContextId, level: u32) -> Result<u64> {
        let level = self.engine.level_run(level)?;
        self.recover().await?;
        self.load(app, context).await?;
        self.sync_device().await?;
        let key = context.0;
        self.use_level(key, level)?;
        if self.manager.state(key).iter().any(|(memory, _)| memory.is_none()) {
            // What is to be read must have arrived.
            let reports = self.keeper.settle(key).await;
            self.note(reports);
        }
        Ok(key)
    }

    /// Make room and restore what is missing.
    async fn enter(&mut self, key: u64, start: Instant) -> Result<Switch> {
        // The last token is run whatever there is: its logits are wanted.
        let entry = self.entry_mut(key)?;
        let most = entry.context.tokens.len().saturating_sub(1);
        if entry.context.table.tokens() > most {
            entry.context.drop_kv(most);
            let left = entry.context.table.tokens();
            self.manager.truncate(key, left);
        }
        let shared = self.share(key)?;
        let plan = self.manager.enter(key, &self.rates)?;
        self.running = Some(key);
        self.engine.hold_device(true);
        let mut switch = Switch { evicted: plan.evict.len(), shared, ..Switch::default() };
        switch.written = self.carry_out(&plan.evict).await?;
        let level = self.entry(key)?.level;
        let sub = self.engine.sub_model(level)?;
        let entry = self.entry_mut(key)?;
        entry.context.unpark()?;
        // What is there can be read at this level: `use_level` has seen to it.
        entry.context.written_by = Some(sub);
        entry.entered = entry.context.table.tokens();
        self.restore(key, &plan.restore, &mut switch).await?;
        switch.ready_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(switch)
    }

    async fn run(
        &mut self,
        key: u64,
        tokens: &[u32],
        options: &GenerateOptions,
        on_text: Option<OnText<'_>>,
        start: Instant,
    ) -> Result<Served> {
        self.check_prompt(key, tokens)?;
        let switch = self.enter(key, start).await?;
        let options = GenerateOptions { collect_density: self.wants_density(), ..options.clone() };
        let context = &mut self.entries.get_mut(&key).ok_or_else(unknown)?.context;
        let mut call = Call::begin(&mut self.engine, context, tokens, &options).await?.since(start);
        let mut silent = |_: &str| ControlFlow::Continue(());
        let generates = on_text.is_some();
        if !generates {
            call = call.silent();
        }
        let on_text = on_text.unwrap_or(&mut silent);
        let mut more = true;
        while more {
            self.room_for(key, &call).await?;
            let context = &mut self.entries.get_mut(&key).ok_or_else(unknown)?.context;
            more = call.prefill(&mut self.engine, context).await?;
            yield_now().await;
        }
        more = generates;
        while more {
            match self.room_for(key, &call).await {
                Err(Error::OverBudget(_)) if call.stop() => break,
                made => made?,
            }
            let context = &mut self.entries.get_mut(&key).ok_or_else(unknown)?.context;
            more = call.decode(&mut self.engine, context, on_text).await?;
        }
        let answer: Answer = call.finish(on_text);
        self.leave(key).await?;
        Ok(Served { answer, switch })
    }

    async fn prewarm_entered(&mut self, key: u64, start: Instant) -> Result<Switch> {
        let switch = self.enter(key, start).await?;
        // What was computed anew takes its width.
        self.leave(key).await?;
        Ok(switch)
    }

    /// Refuse before anything is moved.
    fn check_prompt(&self, key: u64, tokens: &[u32]) -> Result<()> {
        self.engine.check_tokens(tokens)?;
        let entry = self.entry(key)?;
        let (tokens, limit) = (entry.stored + tokens.len(), self.engine.limit_of(&entry.context));
        if tokens > limit { Err(Error::ContextFull { tokens, limit }) } else { Ok(()) }
    }

    async fn room_for(&mut self, key: u64, call: &Call) -> Result<()> {
        let context = &self.entry(key)?.context;
        let tokens = context.table.tokens() + call.next_tokens(&self.engine, context);
        self.make_room(key, tokens).await
    }

    async fn score_entered(
        &mut self,
        key: u64,
        texts: &[(&[u32], usize)],
        level: u32,
        keep: bool,
    ) -> Result<Vec<Vec<f32>>> {
        texts.iter().try_for_each(|(tokens, _)| self.check_prompt(key, tokens))?;
        self.enter(key, Instant::now()).await?;
        let given = self.entry(key)?.context.tokens.clone();
        let density = self.wants_density();
        let mut all_nll = Vec::with_capacity(texts.len());
        for (tokens, first) in texts {
            let all = [&given[..], tokens].concat();
            // The token before it predicts the first, and has to run.
            let first = (given.len() + first).max(1);
            self.make_room(key, all.len().saturating_sub(1)).await?;
            let context = &mut self.entries.get_mut(&key).ok_or_else(unknown)?.context;
            all_nll.push(self.engine.nll_within(context, &all, first, level, density).await?);
            if !tokens.is_empty() {
                self.entry_mut(key)?.context.tokens = all;
            }
        }
        if keep {
            self.leave(key).await?;
        } else {
            self.roll_back(key)?;
        }
        Ok(all_nll)
    }

    /// The call has done its work: make its tokens durable, give chunks their widths, and have them written.
    async fn leave(&mut self, key: u64) -> Result<()> {
        let now = Self::now_ms();
        let entry = self.entry_mut(key)?;
        let (app, at) = (entry.app.clone(), entry.stored);
        let fresh = entry.context.tokens[at..].to_vec();
        let durable = self.keeper.start(move |store| store.append(&app, ContextId(key), at, &fresh, now));
        let settled = self.settle_chunks(key, now).await;
        kept(durable.await)?;
        let entry = self.entry_mut(key)?;
        entry.stored = entry.context.tokens.len();
        entry.used_ms = now;
        // Tokens are safe: whatever failed or fails beside them costs time, not data.
        let written = match &settled {
            Ok(writes) => self.write_out(key, writes).await,
            Err(_) => settled.map(drop),
        };
        if let Err(e) = written {
            log::warn!("keys and values of a context are lost, and will be computed anew: {e}");
            self.reset(key);
        }
        Ok(())
    }

    /// Densities, then widths. Returns the chunks to write.
    async fn settle_chunks(&mut self, key: u64, now: u64) -> Result<Vec<u32>> {
        let entry = self.entries.get_mut(&key).ok_or_else(unknown)?;
        let (rows, written) = (entry.context.density_rows, entry.context.table.tokens());
        entry.computed_to(written);
        if rows > 0 {
            let shares = self.engine.density(&entry.context).await?;
            entry.observe(written - rows, rows, &shares);
            entry.context.density_rows = 0;
        }
        let densities = entry.densities();
        let done = self.manager.finish(key, written, &densities, now);
        let entry = self.entries.get_mut(&key).ok_or_else(unknown)?;
        let wanted: Vec<(usize, Width)> = done.requantise.iter().map(|(i, _, to)| (*i as usize, *to)).collect();
        let mut changed = self.engine.requantise(&mut entry.context, &wanted).await?;
        while changed < wanted.len() {
            // No room for the copies: somebody else's chunks go.
            let before = changed;
            for _ in 0..AT_ONCE {
                let evictions = self.manager.free_one();
                self.carry_out(&evictions).await?;
            }
            let entry = self.entries.get_mut(&key).ok_or_else(unknown)?;
            changed += self.engine.requantise(&mut entry.context, &wanted).await?;
            if changed == before {
                break;
            }
        }
        let mut writes = Vec::with_capacity(done.write.len());
        let entry = self.entries.get_mut(&key).ok_or_else(unknown)?;
        for (index, to) in &wanted {
            let place = entry.context.table.entries()[*index].filter(|place| place.width != *to);
            let kept = place.is_none_or(|place| self.manager.keep_width((key, *index as u32), place.width));
            if !kept {
                entry.context.evict(*index);
            }
        }
        for (index, width) in done.write {
            let place = entry.context.table.entries()[index as usize];
            if place.is_some_and(|place| place.width == width) {
                writes.push(index);
            } else {
                // It went to make room, or kept its width.
                self.manager.write_failed((key, index));
            }
        }
        entry.context.park();
        Ok(writes)
    }

    /// What the call put behind the durable tokens is forgotten. Widths wait for the next call that returns.
    fn roll_back(&mut self, key: u64) -> Result<()> {
        let entry = self.entry_mut(key)?;
        let stored = entry.stored;
        entry.context.tokens.truncate(stored);
        entry.context.drop_kv(stored.saturating_sub(1));
        let left = entry.context.table.tokens();
        entry.forget(left.div_ceil(CHUNK_TOKENS));
        entry.levels.truncate(left.div_ceil(CHUNK_TOKENS));
        entry.context.park();
        let used_ms = entry.used_ms;
        self.manager.truncate(key, left);
        self.manager.stand_down(key, used_ms);
        Ok(())
    }

    /// A call has ended, well or not. One that failed half way may have left chunks in the books that hold nothing.
    async fn returned<T>(&mut self, result: Result<T>) -> Result<T> {
        match result {
            Ok(value) => {
                self.running = None;
                self.engine.hold_device(false);
                Ok(value)
            }
            Err(e) => {
                self.recover().await?;
                Err(e)
            }
        }
    }

    /// A call failed, or its future was dropped: its context goes back to what is durable. That may include the call's own
    /// tokens, where they were on their way to the disk.
    pub(super) async fn recover(&mut self) -> Result<()> {
        let reports = self.keeper.reports();
        self.note(reports);
        self.engine.hold_device(false);
        self.let_go();
        let Some(key) = self.running.take() else { return Ok(()) };
        let entry = self.entry(key)?;
        let app = entry.app.clone();
        let durable = self.keeper.ask(move |store| store.tokens(&app, ContextId(key))).await?;
        let entry = self.entry_mut(key)?;
        match durable {
            Ok(tokens) => (entry.stored, entry.context.tokens) = (tokens.len(), tokens),
            Err(e) => log::warn!("a context's tokens cannot be read again after a failure: {e}"),
        }
        self.reset(key);
        Ok(())
    }

    pub(super) fn wants_density(&self) -> bool {
        self.options.policy.features().compression == concertina_kv::policy::Compression::Tolerance
    }
}

fn unknown() -> Error {
    Error::Store(concertina_kv::store::Error::UnknownContext)
}
