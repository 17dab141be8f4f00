//! Scoring as a service would have it: text comes in calls, and after each of them chunks take their widths.

use std::sync::Arc;

use anyhow::Result;
use concertina::Engine;
use concertina::kv::store::{MemoryMedium, Options as StoreOptions, Store};
use concertina::service::{ContextId, Policy, Service, ServiceOptions};
use pollster::block_on;

const APP: &str = "eval";

/// A service whose contexts live in memory.
pub struct Kept {
    service: Service,
    call: usize,
    level: u32,
}

impl Kept {
    /// How the service is set up for an average of so many bits, where the policy has one.
    pub fn options(average_bits: f32, policy: Policy) -> ServiceOptions {
        ServiceOptions { policy, average_bits: average_bits.into(), ..ServiceOptions::default() }
    }

    /// Serve with `engine`, whose options were prepared for this; calls have `call` tokens and run at `level`.
    pub fn new(engine: Engine, average_bits: f32, policy: Policy, call: usize, level: u32) -> Result<Self> {
        let store = Store::open(Arc::new(MemoryMedium::new()), &StoreOptions::new([1; 32], [1; 32]))?;
        let service = block_on(Service::open(engine, store, Self::options(average_bits, policy)))?;
        Ok(Self { service, call, level })
    }

    /// Have chunks of lower levels read too: see `ServiceOptions::level_slack`.
    pub fn slack(&mut self, percent: u32) {
        self.service.set_level_slack(percent);
    }

    /// Negative log-likelihood of `tokens[1..]`, each given all before it as they are kept. With `written` the first so many
    /// tokens are run at that level, and only those that follow are scored.
    pub fn nll(&mut self, tokens: &[u32], written: Option<(u32, usize)>) -> Result<Vec<f32>> {
        let id = self.context(&[])?;
        let mut nll = Vec::with_capacity(tokens.len());
        let (level, before) = written.unwrap_or((self.level, 0));
        let (first, rest) = tokens.split_at(before.min(tokens.len()));
        for call in first.chunks(self.call) {
            block_on(self.service.append(APP, id, call, level))?;
        }
        for call in rest.chunks(self.call) {
            nll.extend(block_on(self.service.score(APP, id, call, self.level, true))?);
        }
        block_on(self.service.delete(APP, id))?;
        Ok(nll)
    }

    /// A context that holds `tokens`.
    pub fn context(&mut self, tokens: &[u32]) -> Result<ContextId> {
        let id = block_on(self.service.create(APP, None))?;
        for call in tokens.chunks(self.call) {
            block_on(self.service.append(APP, id, call, self.level))?;
        }
        Ok(id)
    }

    /// Negative log-likelihood of each text's tokens from a number on, behind a context, which stays as it is.
    pub fn nll_behind(&mut self, id: ContextId, texts: &[(&[u32], usize)]) -> Result<Vec<Vec<f32>>> {
        Ok(block_on(self.service.score_each(APP, id, texts, self.level))?)
    }
}
