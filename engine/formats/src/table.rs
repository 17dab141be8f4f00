//! The tensors of a file by name, taken out one by one so that what is left over shows.

use crate::{ByteSource, Error, Result, TensorInfo};
use std::collections::BTreeMap;

/// A tensor as a file's header states it, its range checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name, type, shape and place. `rows` is the product of all dimensions but the innermost.
    pub info: TensorInfo,
    /// Number of dimensions, outer ones of length 1 left out: 1 for a vector, 2 for a matrix.
    pub rank: u32,
}

/// Tensors by name, and the sources they lie in.
pub(crate) struct TensorTable<'a> {
    by_name: BTreeMap<&'a str, &'a StoredTensor>,
    sources: &'a [Box<dyn ByteSource>],
}

impl<'a> TensorTable<'a> {
    pub(crate) fn new(tensors: &'a [StoredTensor], sources: &'a [Box<dyn ByteSource>]) -> Self {
        let by_name = tensors.iter().map(|t| (t.info.name.as_str(), t)).collect();
        TensorTable { by_name, sources }
    }

    /// Take the tensor of that name, if it is there, with its shape checked.
    pub(crate) fn take(&mut self, name: &str, rows: usize, cols: usize) -> Result<Option<TensorInfo>> {
        let Some(StoredTensor { info, rank }) = self.by_name.remove(name) else {
            return Ok(None);
        };
        if *rank > 2 || (info.rows, info.cols) != (rows, cols) {
            return Err(Error::malformed(
                format!("tensor '{name}' shape"),
                format!(
                    "found {} x {} in {rank} dimensions, the hyperparameters ask for {rows} x {cols}",
                    info.rows, info.cols
                ),
            ));
        }
        Ok(Some(info.clone()))
    }

    /// As [`TensorTable::take`], for a tensor that must be there.
    pub(crate) fn need(&mut self, name: &str, rows: usize, cols: usize) -> Result<TensorInfo> {
        self.take(name, rows, cols)?
            .ok_or_else(|| Error::malformed(format!("tensor '{name}'"), format!("missing; expected {rows} x {cols}")))
    }

    /// Whether a tensor of that name is (still) there.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Forget the tensors for which `unneeded` holds: what a file repeats but nothing reads.
    pub(crate) fn forget(&mut self, unneeded: impl Fn(&str) -> bool) {
        self.by_name.retain(|name, _| !unneeded(name));
    }

    /// The bytes of a (small) tensor.
    pub(crate) fn read(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        let field = || format!("tensor '{}'", info.name);
        let len = usize::try_from(info.bytes).map_err(|_| Error::malformed(field(), "too large"))?;
        let source = self.sources.get(info.source).ok_or_else(|| Error::malformed(field(), "its file is not open"))?;
        let mut bytes = vec![0; len];
        source.read_at(info.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// An error naming a tensor that nothing took: it would change the model if it were ignored.
    pub(crate) fn expect_empty(&self, arch: &str) -> Result<()> {
        match self.by_name.keys().next() {
            None => Ok(()),
            Some(name) => Err(Error::Unsupported(format!(
                "tensor '{name}' has no part in a model of arch '{arch}' (left over in all: {})",
                self.by_name.len()
            ))),
        }
    }
}
