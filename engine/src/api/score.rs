//! Logits and likelihoods of given tokens.

use super::{Context, Engine};
use crate::forward::{OutRow, Tail};
use crate::{Error, Result};

impl Engine {
    /// Logits after each of `positions`, on a fresh context that holds `tokens`; one row of `vocab` a position.
    /// `piece`: tokens run at once, 0 for as many as fit a batch.
    ///
    /// # Errors
    /// If a token or position does not exist, the tokens do not fit a context, or the device fails.
    pub async fn logits(
        &mut self,
        tokens: &[u32],
        positions: &[usize],
        level: u32,
        piece: usize,
    ) -> Result<Vec<Vec<f32>>> {
        if let Some(p) = positions.iter().find(|p| **p >= tokens.len()) {
            return Err(Error::Invalid(format!("position {p} is past the last of {} tokens", tokens.len())));
        }
        let vocab = self.model.spec.vocab;
        let mut rows = vec![Vec::new(); positions.len()];
        self.device().await?;
        let mut context = self.context()?;
        self.pieces(&mut context, tokens, level, piece, Tail::Logits, |from, n| {
            (from..from + n).filter(|p| positions.contains(p)).map(|p| (p, 0)).collect()
        })
        .await?
        .into_iter()
        .for_each(|(at, bytes)| {
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
            for (at, row) in at.iter().zip(values.chunks_exact(vocab)) {
                for (i, _) in positions.iter().enumerate().filter(|(_, p)| *p == at) {
                    rows[i] = row.to_vec();
                }
            }
        });
        Ok(rows)
    }

    /// Negative log-likelihood, in nats, of `tokens[1..]`, each given all tokens before it.
    ///
    /// # Errors
    /// As [`Engine::logits`].
    pub async fn nll(&mut self, tokens: &[u32], level: u32) -> Result<Vec<f32>> {
        self.nll_from(tokens, 1, level).await
    }

    /// Negative log-likelihood, in nats, of `tokens[first..]`, each given all tokens before it.
    ///
    /// # Errors
    /// As [`Engine::logits`]; `first` must be at least 1.
    pub async fn nll_from(&mut self, tokens: &[u32], first: usize, level: u32) -> Result<Vec<f32>> {
        self.device().await?;
        let mut context = self.context()?;
        self.nll_in(&mut context, tokens, first, level).await
    }

    /// As [`Engine::nll_from`], on a context that may hold a beginning of `tokens`: what both share is not computed
    /// again. The context holds `tokens` without the last one afterwards. Choices that follow one text are scored fast
    /// so.
    ///
    /// # Errors
    /// As [`Engine::nll_from`].
    pub async fn nll_in(
        &mut self,
        context: &mut Context,
        tokens: &[u32],
        first: usize,
        level: u32,
    ) -> Result<Vec<f32>> {
        self.nll_within(context, tokens, first, level, false).await
    }

    /// As [`Engine::nll_in`], perhaps collecting densities.
    pub(crate) async fn nll_within(
        &mut self,
        context: &mut Context,
        tokens: &[u32],
        first: usize,
        level: u32,
        density: bool,
    ) -> Result<Vec<f32>> {
        if first == 0 {
            return Err(Error::Invalid("the first token has nothing before it to be predicted from".into()));
        }
        if tokens.len() <= first {
            return Ok(Vec::new());
        }
        self.check_tokens(tokens)?;
        // The last token predicts nothing; the one before the first scored one must run to predict it.
        let given = &tokens[..tokens.len() - 1];
        let common = context.keep_common(given);
        context.drop_kv(common.min(first - 1));
        let found = self
            .pieces_with(context, given, level, 0, Tail::Nll, density, |from, n| {
                (from..from + n).filter(|p| p + 1 >= first).map(|p| (p, tokens[p + 1])).collect()
            })
            .await?;
        Ok(found.into_iter().flat_map(|(_, bytes)| bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)).collect())
    }

    /// Make `context` hold `tokens`, of which it holds a beginning, and run piece by piece those that have no keys and
    /// values yet. `wanted(from, n)` names the positions of a piece that want a tail, each with its wanted token. Returns
    /// those positions and the tail's bytes, a piece each.
    pub(crate) async fn pieces(
        &mut self,
        context: &mut Context,
        tokens: &[u32],
        level: u32,
        piece: usize,
        tail: Tail,
        wanted: impl FnMut(usize, usize) -> Vec<(usize, u32)>,
    ) -> Result<Vec<(Vec<usize>, Vec<u8>)>> {
        self.pieces_with(context, tokens, level, piece, tail, false, wanted).await
    }

    #[allow(clippy::too_many_arguments)] // `pieces`, and whether densities are collected
    async fn pieces_with(
        &mut self,
        context: &mut Context,
        tokens: &[u32],
        level: u32,
        piece: usize,
        tail: Tail,
        density: bool,
        mut wanted: impl FnMut(usize, usize) -> Vec<(usize, u32)>,
    ) -> Result<Vec<(Vec<usize>, Vec<u8>)>> {
        let level = self.level_run(level)?;
        self.check_tokens(tokens)?;
        self.device().await?;
        let limit = self.limit_of(context);
        if tokens.len() > limit {
            return Err(Error::ContextFull { tokens: tokens.len(), limit });
        }
        context.tokens = tokens.to_vec();
        self.settle(context, level)?;
        let device = self.device().await?;
        let most = device.forward.capacity().rows;
        let piece = if piece == 0 { most } else { piece.min(most) };
        let mut found = Vec::new();
        while context.table.tokens() < tokens.len() {
            let from = context.table.tokens();
            let n = piece.min(tokens.len() - from);
            let at = wanted(from, n);
            let outs: Vec<OutRow> = at
                .iter()
                .map(|(p, token)| OutRow { row: (p - from) as u32, sampler: 0, wanted: *token, feed: u32::MAX })
                .collect();
            let tail = if outs.is_empty() { Tail::None } else { tail };
            let bytes = device.append(context, level, n, &outs, tail, density).await?;
            found.push((at.into_iter().map(|(p, _)| p).collect(), bytes));
        }
        Ok(found)
    }
}
