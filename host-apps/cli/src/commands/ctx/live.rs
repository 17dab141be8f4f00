//! From flags to a service that runs.

use anyhow::Result;
use concertina::Options;
use concertina::formats::Model;
use concertina::kv::store::Store;
use concertina::service::{Service, ServiceOptions};

use super::args::ServiceArgs;
use crate::cli::GlobalArgs;
use crate::session::{Session, context_tokens};

/// Load the model and serve the contexts of a store with it.
pub fn open_service(global: &GlobalArgs, args: &ServiceArgs, store: Store) -> Result<Service> {
    let how = ServiceOptions {
        policy: args.policy,
        average_bits: args.average_bits,
        host: crate::tuning::host(),
        ..ServiceOptions::default()
    };
    let session = Session::open(global, |model, options| prepare(args, &how, model, options))?;
    Ok(pollster::block_on(Service::open(session.engine, store, how))?)
}

fn prepare(args: &ServiceArgs, how: &ServiceOptions, model: &Model, options: &mut Options) -> Result<()> {
    options.kv_budget_bytes = args.kv_memory.as_u64();
    options.context_tokens = match args.context {
        asked @ Some(_) => context_tokens(model, options, asked)?,
        // A part of the memory goes to slabs that are not full.
        None => {
            let fits = options.tokens_within(&model.spec, options.kv_budget_bytes / 4 * 3);
            fits.min(context_tokens(model, options, None)?).max(1)
        }
    };
    how.prepare(options);
    Ok(())
}
