//! What the keys of a model have in common, measured where chunks are quantised: see `forward/centres.rs`.

use concertina_kv::{CHUNK_TOKENS, Width};

use super::{Context, Engine};
use crate::Result;
use crate::forward::{KeyMedians, Tail};

/// Prose, speech, numbers, code and a list: what the medians are measured on. They follow from it; another text would do nearly as well.
const TEXT: &str = "\
The ferry left the harbour at seven, an hour late, and most of the passengers had gone below to keep warm. \"Will it take \
long?\" asked the boy. His aunt, who had made the crossing 23 times since 1987, only smiled: it depends on the wind, the tide, \
and the captain's mood. In general, a small engine burns about 4.5 litres an hour; however, nobody on board seemed to care.

def area(width, height):
    # Return the size of a field in square metres.
    return width * height if width > 0 else None

- First, mix the flour with water and salt.
- Then let it rest (two hours at least), and bake it.
";

/// Most tokens that are read of it.
const TOKENS: usize = 256;

impl Engine {
    /// Have the medians of keys at hand if chunks are ever quantised without biases to tell them: what the host kept, else measured now.
    pub(super) async fn ready_key_medians(&mut self) -> Result<()> {
        if !self.device().await?.forward.wants_key_medians() {
            return Ok(());
        }
        let key = self.key_medians_key();
        let host = self.options.tune_host.clone();
        let kept = host.as_ref().and_then(|host| host.load(&key)).and_then(|text| {
            let (of, bytes): (String, Vec<u8>) = serde_json::from_str(&text).ok()?;
            KeyMedians::from_bytes(&bytes, &self.model.spec).filter(|_| of == key)
        });
        let medians = match kept {
            Some(medians) => medians,
            None => {
                let medians = self.measure_key_medians().await?;
                if let (Some(host), Ok(text)) = (host, serde_json::to_string(&(&key, medians.to_bytes()))) {
                    host.store(&key, &text);
                }
                medians
            }
        };
        self.use_key_medians(medians).await
    }

    /// Quantise with these medians from now on. Chunks that were quantised with others must be gone.
    pub(crate) async fn use_key_medians(&mut self, medians: KeyMedians) -> Result<()> {
        let device = self.device().await?;
        device.forward.set_key_medians(&mut device.backend, Some(&medians)).await?;
        self.key_medians = Some(medians);
        Ok(())
    }

    /// What names them where the host keeps them. Models that this takes for the same get each other's medians, which costs them
    /// some accuracy and is no error.
    fn key_medians_key(&self) -> String {
        let spec = &self.model.spec;
        let weights: u64 = self.model.sources.iter().map(|source| source.len()).sum();
        format!("key medians 1: {} layers, {} dimensions, {weights} bytes", spec.layers.len(), spec.dim)
    }

    async fn measure_key_medians(&mut self) -> Result<KeyMedians> {
        let mut tokens = self.model.tokenizer.encode_prompt(TEXT, false)?;
        tokens.truncate(TOKENS.min(self.context_limit()) / CHUNK_TOKENS * CHUNK_TOKENS);
        let mut context = self.context()?;
        // As they are written, whatever the options bring full chunks to.
        let width = std::mem::replace(&mut self.device().await?.options.kv_width, Width::W16);
        let run = self.pieces(&mut context, &tokens, 100, 0, Tail::None, |_, _| Vec::new()).await;
        let device = self.device().await?;
        device.options.kv_width = width;
        run?;
        let medians = device.forward.key_medians(&mut device.backend, &full_chunks(&context)).await?;
        // Pages that nobody has hold nothing.
        let places: Vec<_> = context.table.entries().iter().flatten().copied().collect();
        device.forward.clear_chunks(&mut device.backend, &places)?;
        Ok(medians)
    }
}

/// Those that a text is measured on: the first one is like no other.
fn full_chunks(context: &Context) -> Vec<(usize, concertina_kv::ChunkEntry)> {
    let full = context.resident_tokens() / CHUNK_TOKENS;
    let there = context.table.entries().iter().enumerate().take(full).skip(1);
    there.filter_map(|(chunk, entry)| Some((chunk, (*entry)?))).collect()
}
