//! How a service is set up.

use std::sync::Arc;

use concertina_kv::Width;
use concertina_kv::policy::{Compression, Policy, Rates, Split, WidthErrors};

use crate::Options;
use crate::tune::TuneHost;

/// How contexts are kept.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// What to keep, drop and restore. Others than [`Policy::Ours`] are there for comparison.
    pub policy: Policy,
    /// Bits that the sealed chunks of a context have on average, at most.
    pub average_bits: f64,
    /// What each width costs.
    pub width_errors: WidthErrors,
    /// How far below a call's level, in percent, the level may lie that wrote the chunks it reads. 0: chunks of a lower
    /// level are computed anew.
    pub level_slack: u32,
    /// Contexts that an app may have.
    pub contexts_per_app: usize,
    /// Threads that read and open chunks.
    pub readers: usize,
    /// How a restore is split between reading and computing; planned by default.
    pub split: Split,
    /// How fast the device reads and computes. `None`: what the host kept, else it is measured when the service opens.
    pub rates: Option<Rates>,
    /// Keeps the measured rates.
    pub host: Option<Arc<dyn TuneHost>>,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            policy: Policy::Ours,
            average_bits: 4.0,
            width_errors: WidthErrors::default(),
            level_slack: 0,
            contexts_per_app: 64,
            readers: 2,
            split: Split::Planned,
            rates: None,
            host: None,
        }
    }
}

impl ServiceOptions {
    /// What the engine must provide for: chunks in the widths that the policy uses, and tables for the contexts that run.
    pub fn prepare(&self, options: &mut Options) {
        options.kv_widths = match self.policy.features().compression {
            Compression::None => Vec::new(),
            Compression::Uniform(width) => vec![width],
            Compression::Tolerance => vec![Width::W8, Width::W4, Width::W2],
        };
        (options.kv_width, options.kv_narrower) = (Width::W16, 0.0);
        options.contexts = options.contexts.max(2);
    }
}
