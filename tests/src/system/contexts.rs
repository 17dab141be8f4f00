//! A service over a store in memory.

use std::ops::ControlFlow;
use std::sync::Arc;

use concertina::kv::policy::{LineFit, Rates};
use concertina::kv::store::{MemoryMedium, Options as StoreOptions, Store};
use concertina::service::{ContextId, Policy, Served, Service, ServiceOptions};
use concertina::{Engine, GenerateOptions, Options, Result, Sampling};
use pollster::block_on;

/// A store on `medium`; each opening gets other randomness.
pub fn store(medium: &Arc<MemoryMedium>, opening: u8) -> Store {
    let options = StoreOptions { index_reserve_bytes: 4 << 20, ..StoreOptions::new([7; 32], [opening; 32]) };
    Store::open(medium.clone(), &options).expect("a store")
}

/// Service options that measure nothing.
pub fn by(policy: Policy) -> ServiceOptions {
    let rates = Rates::new(LineFit::new(0.0, 0.01), LineFit::new(0.0, 1e-9));
    ServiceOptions { policy, rates: Some(rates), ..ServiceOptions::default() }
}

/// A service; `load` makes an engine of the options that the service wants changed.
pub fn serve(store: Store, how: ServiceOptions, options: Options, load: impl FnOnce(Options) -> Engine) -> Service {
    let mut options = options;
    how.prepare(&mut options);
    block_on(Service::open(load(options), store, how)).expect("a service")
}

/// Greedy, and as many tokens as asked for.
pub fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens, sampling: Sampling::greedy(), ignore_end: true, ..GenerateOptions::default() }
}

/// Ask a context and wait.
pub fn ask(service: &mut Service, app: &str, id: ContextId, tokens: &[u32], answer: usize) -> Result<Served> {
    block_on(service.generate(app, id, tokens, &greedy(answer), |_| ControlFlow::Continue(())))
}
