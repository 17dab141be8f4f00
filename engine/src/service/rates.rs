//! How fast the device computes and reads: measured at first use, kept by the host, refreshed by every restore.

use concertina_kv::policy::{ChunkBytes, LineFit, Rates};
use concertina_kv::store::{ChunkPut, Error as StoreError, Opened};
use concertina_kv::{CHUNK_TOKENS, Width};
use web_time::Instant;

use super::{PageBytes, Service, ServiceOptions};
use crate::forward::Tail;
use crate::{Engine, Result};

/// Tokens of the two measurements of prefill, and chunks of those of reading.
const TOKENS: [usize; 2] = [CHUNK_TOKENS, 8 * CHUNK_TOKENS];
const CHUNKS: [usize; 2] = [1, 16];

/// The app of the context that is read for measuring.
const NOBODY: &str = "";

/// What is known without measuring, and whether that is all that is needed.
pub fn known(engine: &Engine, options: &ServiceOptions) -> (Rates, bool) {
    let kept = || {
        let text = options.host.as_ref()?.load(&key(engine))?;
        serde_json::from_str(&text).ok()
    };
    match options.rates.clone().or_else(kept) {
        Some(rates) => (rates, true),
        None => (Rates::new(LineFit::new(0.0, 0.01), LineFit::new(0.0, 1e-9)), false),
    }
}

fn key(engine: &Engine) -> String {
    let spec = &engine.model.spec;
    let weights: u64 = engine.model.sources.iter().map(|source| source.len()).sum();
    format!("restore rates 1: {}; {} layers, {weights} bytes", engine.adapter(), spec.layers.len())
}

impl Service {
    /// Have the host keep the rates.
    pub(super) fn keep_rates(&self) {
        if let (Some(host), Ok(text)) = (&self.options.host, serde_json::to_string(&self.rates)) {
            host.store(&key(&self.engine), &text);
        }
    }

    /// Measure both rates, on a context that is deleted afterwards.
    pub(super) async fn measure_rates(&mut self) -> Result<()> {
        let vocab = self.engine.model.spec.vocab as u32;
        let most = self.engine.context_limit();
        for (i, tokens) in [TOKENS[0], TOKENS[0], TOKENS[1]].into_iter().enumerate() {
            let text: Vec<u32> = (0..tokens.min(most) as u32).map(|t| t * 31 % vocab).collect();
            let mut context = self.engine.context()?;
            let start = Instant::now();
            self.engine.pieces(&mut context, &text, 100, 0, Tail::None, |_, _| Vec::new()).await?;
            self.engine.device().await?.backend.flush().await?;
            // The first time everything is made ready.
            if i > 0 {
                self.rates.recompute.observe(text.len() as f64, start.elapsed().as_secs_f64());
            }
        }
        if self.options.policy.features().disk {
            self.measure_reading().await?;
        }
        self.keep_rates();
        Ok(())
    }

    async fn measure_reading(&mut self) -> Result<()> {
        let (model, layers, now) = (self.model, self.geometry.layers, Self::now_ms());
        let bytes = self.geometry.layer_bytes(Width::W16) as usize;
        let measured = self.keeper.ask(move |store| {
            let id = store.create(NOBODY, model, now)?;
            let most = CHUNKS[1] * CHUNK_TOKENS;
            store.append(NOBODY, id, 0, &(0..most as u32).collect::<Vec<_>>(), now)?;
            let layer = vec![0x5a; bytes];
            let layers = vec![&layer[..]; layers];
            let put = |index| ChunkPut {
                index,
                tokens: CHUNK_TOKENS,
                level: 1,
                width: Width::W16,
                density: 0.0,
                layers: &layers,
            };
            store.put_chunks(NOBODY, id, &(0..CHUNKS[1]).map(put).collect::<Vec<_>>())?;
            store.flush()?;
            let readers = store.readers(NOBODY, id)?;
            let mut times = Vec::new();
            let mut buffer = Vec::new();
            for chunks in CHUNKS {
                let start = Instant::now();
                for reader in readers.iter().take(chunks) {
                    let sealed = reader.read_sealed(std::mem::take(&mut buffer));
                    let opened = sealed.and_then(|sealed| reader.open_whole(sealed));
                    buffer = opened.map(Opened::into_buffer).unwrap_or_default();
                }
                times.push((chunks, start.elapsed().as_secs_f64()));
            }
            store.delete(NOBODY, id)?;
            Ok::<_, StoreError>(times)
        });
        match measured.await? {
            Ok(times) => {
                let chunk = PageBytes(self.geometry).disk(Width::W16) as f64;
                times.into_iter().for_each(|(n, seconds)| self.rates.read.observe(n as f64 * chunk, seconds));
            }
            // A full disk: reading is not what this service will do much of.
            Err(e) => log::warn!("the speed of reading could not be measured: {e}"),
        }
        Ok(())
    }
}
