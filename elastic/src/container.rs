//! What this crate's files have in common: safetensors with a head as JSON in one metadata entry.

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// Name of the metadata entry.
const ENTRY: &str = "concertina";

/// A tensor to be written: name, type, shape, bytes.
pub(crate) type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// A file that was opened and whose head is of a version that is read.
pub(crate) struct Container<'a> {
    name: &'static str,
    file: SafeTensors<'a>,
    head: String,
}

impl<'a> Container<'a> {
    /// Open a file of the format `name`.
    pub(crate) fn open(name: &'static str, version: u32, bytes: &'a [u8]) -> Result<Self, Error> {
        /// The version alone: a head of another version may have other fields.
        #[derive(serde::Deserialize)]
        struct Version {
            version: u32,
        }
        let container = |e: safetensors::SafeTensorError| Error::Container { file: name, problem: e.to_string() };
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(container)?;
        let file = SafeTensors::deserialize(bytes).map_err(container)?;
        let head = metadata.metadata().as_ref().and_then(|all| all.get(ENTRY)).cloned();
        let opened = Self { name, file, head: head.unwrap_or_default() };
        if opened.head.is_empty() {
            return Err(opened.malformed("head", format!("there is no metadata entry '{ENTRY}'")));
        }
        let found: Version = opened.head()?;
        if found.version != version {
            return Err(opened.malformed("version", format!("{}, and {version} is read", found.version)));
        }
        Ok(opened)
    }

    /// The head.
    pub(crate) fn head<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.head).map_err(|e| self.malformed("head", e.to_string()))
    }

    /// Tensors in it.
    pub(crate) fn len(&self) -> usize {
        self.file.len()
    }

    /// The bytes of a tensor, which must be of that type and shape.
    pub(crate) fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&'a [u8], Error> {
        let field = || format!("tensor '{name}'");
        let tensor = self.file.tensor(name).map_err(|_| self.malformed(field(), "missing"))?;
        if tensor.dtype() != dtype || tensor.shape() != shape {
            let problem = format!("{:?} {:?}, expected {dtype:?} {shape:?}", tensor.dtype(), tensor.shape());
            return Err(self.malformed(field(), problem));
        }
        Ok(tensor.data())
    }

    /// The numbers of a tensor of f32.
    pub(crate) fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
        let bytes = self.bytes(name, Dtype::F32, shape)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// The numbers of a tensor of u32.
    pub(crate) fn words(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>, Error> {
        let bytes = self.bytes(name, Dtype::U32, shape)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn malformed(&self, field: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Malformed { file: self.name, field: field.into(), problem: problem.into() }
    }
}

/// The bytes of a file of the format `name`.
pub(crate) fn to_bytes(name: &'static str, head: &impl Serialize, tensors: &[Stored]) -> Result<Vec<u8>, Error> {
    let problem = |field: &str, problem: String| Error::Malformed { file: name, field: field.into(), problem };
    let head = serde_json::to_string(head).map_err(|e| problem("head", e.to_string()))?;
    let container = |e: safetensors::SafeTensorError| Error::Container { file: name, problem: e.to_string() };
    let mut views = Vec::with_capacity(tensors.len());
    for (name, dtype, shape, bytes) in tensors {
        views.push((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).map_err(container)?));
    }
    safetensors::serialize(views, Some([(ENTRY.to_owned(), head)].into_iter().collect())).map_err(container)
}
