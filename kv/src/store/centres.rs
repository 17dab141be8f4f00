//! Centres of models: constants, measured once, that quantised keys are stored without.
//!
//! A chunk can be read only with the centres that it was written with, so the store keeps them beside the chunks, and a
//! model's chunks do not outlive its centres.

use redb::{ReadableDatabase, ReadableTable};

use super::Store;
use super::chunks::unlink;
use super::contexts::ModelId;
use super::error::{Error, Result, index};
use super::rows::{CENTRES, CONTEXTS, ContextRow};

impl Store {
    /// A model's centres, as they were set; `None` where they never were.
    ///
    /// # Errors
    /// Where reading the index fails.
    pub fn centres(&mut self, model: ModelId) -> Result<Option<Vec<u8>>> {
        let read = self.db()?.begin_read().map_err(index)?;
        let centres = read.open_table(CENTRES).map_err(index)?.get(&model.0).map_err(index)?;
        Ok(centres.map(|centres| centres.value().to_vec()))
    }

    /// Set a model's centres, durable when this returns. Where they differ from those that are set, or none are, all chunks
    /// of the model are forgotten with the same step, in all contexts of all apps. Tokens and contexts stay.
    ///
    /// # Errors
    /// Where writing fails or the disk is full.
    pub fn set_centres(&mut self, model: ModelId, centres: &[u8]) -> Result<()> {
        if self.centres(model)?.as_deref() == Some(centres) {
            return Ok(());
        }
        let freed = self.commit(true, |txn| {
            let mut owners = Vec::new();
            for entry in txn.open_table(CONTEXTS).map_err(index)?.iter().map_err(index)? {
                let (id, row) = entry.map_err(index)?;
                let row = ContextRow::decode(row.value()).ok_or(Error::Damaged("a context's row"))?;
                if row.model == model.0 {
                    owners.push(id.value());
                }
            }
            // Prefixes begin with the model: its chunks are linked by its contexts alone.
            let mut freed = Vec::new();
            for owner in owners {
                unlink(txn, owner, 0..u32::MAX, &mut freed)?;
            }
            txn.open_table(CENTRES).map_err(index)?.insert(&model.0, centres).map_err(index)?;
            Ok(freed)
        })?;
        self.give_back(freed);
        Ok(())
    }
}
