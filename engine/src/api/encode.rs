//! The encoder beside the model.

use std::sync::Arc;

use concertina_elastic::heads::Heads;
use concertina_formats::Bert;

use super::Engine;
use super::engine::Device;
use crate::encoder::{self, Encoded, EncoderFiles, Target};
use crate::{Error, Result};

impl Engine {
    /// Load an encoder onto the model's device: the file of its bottom, and heads that were trained on it. It takes the place
    /// of one that is loaded.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the heads are for another encoder, and if it does not fit the device.
    pub async fn load_encoder(&mut self, bottom: Bert, heads: Heads) -> Result<()> {
        let files = Arc::new(EncoderFiles::new(bottom, heads)?);
        self.unload_encoder();
        let exact = self.options.exact;
        let Device { backend, encoder, .. } = self.device().await?;
        encoder.load(backend, &files, exact).await?;
        self.encoder = Some(files);
        Ok(())
    }

    /// Free the encoder and its memory, if one is loaded.
    pub fn unload_encoder(&mut self) {
        self.encoder = None;
        if let Some(Device { backend, encoder, .. }) = &mut self.device {
            encoder.release(backend);
        }
    }

    /// The heads of the encoder that is loaded: which targets and levels there are.
    pub fn heads(&self) -> Option<&Heads> {
        self.encoder.as_ref().map(|files| &files.heads)
    }

    /// Read a text: a score for each of its words, and logits of the levels for a target.
    ///
    /// # Errors
    /// [`Error::Invalid`] if no encoder is loaded, and as [`Engine::generate`].
    pub async fn encode(&mut self, text: &str, target: Target) -> Result<Encoded> {
        let missing = || Error::Invalid("no encoder is loaded: load one before a text is encoded".into());
        let files = self.encoder.clone().ok_or_else(missing)?;
        let exact = self.options.exact;
        let Device { backend, encoder, .. } = self.device().await?;
        // Again, where the device is new.
        let encoder = encoder.load(backend, &files, exact).await?;
        encoder::read(encoder, backend, &files, text, target).await
    }
}
