//! Latency targets of calls on contexts: what a level would have to compute anew counts.

use concertina_elastic::slo::{Decision, Restriction, Target};
use concertina_kv::CHUNK_TOKENS;
use concertina_kv::store::ContextId;

use super::Service;
use crate::Result;
use crate::api::{Planner, Wish};

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
        self.recover().await?;
        self.load(app, context).await?;
        let key = context.0;
        let before_ms = self.manager.restore_s(key, &self.rates) * 1e3;
        let levels = match (wish.only.level, self.engine.levels()) {
            (Some(only), _) => vec![only],
            (None, []) => planner.profile().levels.iter().map(|cost| cost.level).collect(),
            (None, table) => table.to_vec(),
        };
        let mut best: Option<(Decision, Target)> = None;
        for level in levels {
            let stale = self.stale_tokens(key, self.engine.level_run(level)?)?;
            let before = self.entry(key)?.context.tokens().len().saturating_sub(stale);
            let only = Wish { only: Restriction { level: Some(level), ..wish.only }, ..*wish };
            // What must be computed anew comes with the prompt; the target of a class is that of the prompt alone.
            let target = planner.target_of(wish, tokens, before + stale);
            let (found, _) =
                planner.plan_level(tokens + stale, before, before_ms, &Wish { target, class: None, ..only });
            let missed = |d: &Decision| {
                d.ttft_ms / target.ttft_ms.unwrap_or(f64::INFINITY)
                    + d.tpot_ms / target.tpot_ms.unwrap_or(f64::INFINITY)
            };
            // Levels rise: a later one that meets the target is better.
            let better = match &best {
                None => true,
                Some((old, _)) if found.feasible || old.feasible => found.feasible,
                Some((old, _)) => missed(&found) < missed(old),
            };
            if better {
                best = Some((found, target));
            }
        }
        Ok(best.unwrap_or_else(|| planner.plan_level(tokens, 0, before_ms, wish)))
    }

    /// Tokens of the chunks that a call at `level` would compute anew.
    fn stale_tokens(&mut self, key: u64, level: u32) -> Result<usize> {
        let readable = self.readable_by(level);
        let entry = self.entry(key)?;
        let stale = entry.levels.iter().filter(|wrote| !readable.contains(wrote)).count();
        Ok((stale * CHUNK_TOKENS).min(entry.context.tokens().len()))
    }
}
