//! A package from bytes, checked.

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::{Adapter, AdaptersHead, ENTRY, Error, Head, LevelAdapters, Package, Shape, VERSION};
use crate::{LayerOrder, LayerUnits, SubModel};

/// Largest of any size: far above every model's, and small enough that products of a few do not overflow.
const MAX_SIZE: usize = 1 << 20;
/// Largest rank.
const MAX_RANK: usize = 1024;

impl Package {
    /// Read and check a package. `bytes` may be a mapped file: what is kept is copied.
    ///
    /// # Errors
    /// [`Error`] naming what is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let container = |e: safetensors::SafeTensorError| Error::Container(e.to_string());
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(container)?;
        let file = SafeTensors::deserialize(bytes).map_err(container)?;
        let entry = metadata.metadata().as_ref().and_then(|all| all.get(ENTRY));
        let text = entry.ok_or_else(|| Error::malformed("head", format!("there is no metadata entry '{ENTRY}'")))?;
        let version: Version = serde_json::from_str(text).map_err(|e| Error::malformed("head", e.to_string()))?;
        if version.version != VERSION {
            return Err(Error::malformed("version", format!("{}, and {VERSION} is read", version.version)));
        }
        let head: Head = serde_json::from_str(text).map_err(|e| Error::malformed("head", e.to_string()))?;
        check_shape(&head.shape)?;
        let reader = Reader { file: &file, shape: &head.shape };
        let order = reader.order()?;
        let levels = reader.levels(&head.levels)?;
        let adapters: Result<_, _> = head.adapters.iter().map(|head| reader.adapters(head, &levels)).collect();
        let package = Self {
            model: head.model,
            criterion: head.criterion,
            order,
            anchors: head.anchors,
            levels,
            adapters: adapters?,
            report: head.report,
            shape: head.shape,
        };
        let tensors = 4 + 2 * package.adapters.len();
        if file.len() != tensors {
            return Err(Error::malformed("tensors", format!("{}, the head names {tensors}", file.len())));
        }
        package.check()?;
        Ok(package)
    }

    /// Whether all parts fit each other.
    pub(super) fn check(&self) -> Result<(), Error> {
        check_shape(&self.shape)?;
        let layers = self.shape.layers;
        if self.order.len() != layers {
            return Err(Error::malformed("order", format!("{} layers, not {layers}", self.order.len())));
        }
        for (l, order) in self.order.iter().enumerate() {
            let sizes = (order.groups.len(), order.heads.len(), order.neurons.len());
            if sizes != (self.shape.groups, self.shape.heads, self.shape.neurons) {
                return Err(Error::malformed(format!("order of layer {l}"), format!("{sizes:?} units")));
            }
            if let Some(problem) = order.problem() {
                return Err(Error::malformed(format!("order of layer {l}"), problem));
            }
        }
        if !self.anchors.windows(2).all(|w| w[0] < w[1]) || self.anchors.last().is_some_and(|last| *last >= layers) {
            return Err(Error::malformed("anchors", format!("{:?} of {layers} layers", self.anchors)));
        }
        let rising = self.levels.windows(2).all(|w| w[0].level < w[1].level);
        if !rising || self.levels.last().is_none_or(|last| last.level != 100) || self.levels[0].level == 0 {
            let levels: Vec<u32> = self.levels.iter().map(|sub| sub.level).collect();
            return Err(Error::malformed("levels", format!("{levels:?} do not rise from above 0 to 100")));
        }
        self.levels.iter().try_for_each(|sub| self.check_level(sub))?;
        if !self.adapters.windows(2).all(|w| w[0].level < w[1].level) {
            return Err(Error::malformed("adapters", "their levels do not rise"));
        }
        self.adapters.iter().try_for_each(|adapters| self.check_adapters(adapters))
    }

    fn check_level(&self, sub: &SubModel) -> Result<(), Error> {
        let field = || format!("level {}", sub.level);
        if sub.layers.len() != self.shape.layers {
            return Err(Error::malformed(field(), format!("{} layers, not {}", sub.layers.len(), self.shape.layers)));
        }
        let fits = |n: usize, all: usize, step: usize| n == all || (n > 0 && n < all && n.is_multiple_of(step));
        let shape = self.shape.layer();
        for (l, units) in sub.layers.iter().enumerate() {
            let whole = *units == LayerUnits { groups: shape.groups, neurons: shape.neurons };
            if !fits(units.groups, shape.groups, shape.group_step)
                || !fits(units.neurons, shape.neurons, shape.neuron_step)
            {
                return Err(Error::malformed(field(), format!("layer {l} cannot be cut to {units:?} of {shape:?}")));
            }
            if !whole && (sub.level == 100 || self.anchors.contains(&l)) {
                return Err(Error::malformed(field(), format!("layer {l} keeps {units:?}, it should keep all")));
            }
        }
        Ok(())
    }

    fn check_adapters(&self, adapters: &LevelAdapters) -> Result<(), Error> {
        let field = || format!("adapters of level {}", adapters.level);
        let Some(sub) = self.level(adapters.level) else {
            return Err(Error::malformed(field(), "the level table does not have it"));
        };
        if !(1..=MAX_RANK).contains(&adapters.rank) {
            return Err(Error::malformed(field(), format!("a rank of {}", adapters.rank)));
        }
        let rising = adapters.sites.windows(2).all(|w| (w[0].0, w[0].1) < (w[1].0, w[1].1));
        if !rising || adapters.sites.last().is_some_and(|last| last.0 >= self.shape.layers) {
            return Err(Error::malformed(field(), "their sites do not rise from the first layer to the last"));
        }
        for (layer, site, adapter) in &adapters.sites {
            let (rank, inputs) = (adapters.rank, Self::inputs(&self.shape, sub, *layer, *site));
            let lengths =
                [adapter.a.len(), adapter.b.len(), adapter.c.len(), adapter.a_scales.len(), adapter.b_scales.len()];
            let expected = [rank * inputs, rank * self.shape.dim, self.shape.dim, rank, rank];
            let sizes = (adapter.rank, adapter.inputs, adapter.outputs);
            if lengths != expected || sizes != (rank, inputs, self.shape.dim) {
                return Err(Error::malformed(field(), format!("{site:?} of layer {layer}: {sizes:?}, {lengths:?}")));
            }
            let scales = adapter.a_scales.iter().chain(&adapter.b_scales).chain([&adapter.c_scale]);
            if scales.into_iter().any(|scale| !scale.is_finite() || *scale < 0.0) {
                return Err(Error::malformed(field(), format!("{site:?} of layer {layer}: a scale is no number")));
            }
        }
        Ok(())
    }
}

/// The version alone: a head of another version may have other fields.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

fn check_shape(shape: &Shape) -> Result<(), Error> {
    let sizes = [
        shape.layers,
        shape.dim,
        shape.heads,
        shape.head_dim,
        shape.groups,
        shape.neurons,
        shape.group_step,
        shape.neuron_step,
    ];
    let whole = shape.groups > 0 && shape.heads.is_multiple_of(shape.groups);
    if sizes.iter().any(|n| !(1..=MAX_SIZE).contains(n)) || !whole {
        return Err(Error::malformed("shape", format!("{shape:?}")));
    }
    Ok(())
}

struct Reader<'a> {
    file: &'a SafeTensors<'a>,
    shape: &'a Shape,
}

impl Reader<'_> {
    /// The bytes of a tensor of that type and shape.
    fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8], Error> {
        let tensor = self.file.tensor(name).map_err(|_| Error::malformed(format!("tensor '{name}'"), "missing"))?;
        if tensor.dtype() != dtype || tensor.shape() != shape {
            let problem = format!("{:?} {:?}, expected {dtype:?} {shape:?}", tensor.dtype(), tensor.shape());
            return Err(Error::malformed(format!("tensor '{name}'"), problem));
        }
        // `tensor` borrows the file's bytes, not the reader.
        let range = tensor.data();
        Ok(range)
    }

    fn words(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>, Error> {
        let bytes = self.bytes(name, Dtype::U32, shape)?;
        Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn order(&self) -> Result<Vec<LayerOrder>, Error> {
        let shape = self.shape;
        let groups = self.words("order.groups", &[shape.layers, shape.groups])?;
        let heads = self.words("order.heads", &[shape.layers, shape.heads])?;
        let neurons = self.words("order.neurons", &[shape.layers, shape.neurons])?;
        let layers = groups.chunks_exact(shape.groups).zip(heads.chunks_exact(shape.heads));
        let layers = layers.zip(neurons.chunks_exact(shape.neurons));
        let order = |((groups, heads), neurons): ((&[u32], &[u32]), &[u32])| LayerOrder {
            groups: groups.to_vec(),
            heads: heads.to_vec(),
            neurons: neurons.to_vec(),
        };
        Ok(layers.map(order).collect())
    }

    fn levels(&self, levels: &[u32]) -> Result<Vec<SubModel>, Error> {
        let layers = self.shape.layers;
        let table = self.words("levels", &[levels.len(), layers, 2])?;
        let units = |pair: &[u32]| LayerUnits { groups: pair[0] as usize, neurons: pair[1] as usize };
        let sub = |(level, words): (&u32, &[u32])| SubModel {
            level: *level,
            layers: words.chunks_exact(2).map(units).collect(),
        };
        Ok(levels.iter().zip(table.chunks_exact(layers * 2)).map(sub).collect())
    }

    fn adapters(&self, head: &AdaptersHead, levels: &[SubModel]) -> Result<LevelAdapters, Error> {
        let field = format!("adapters of level {}", head.level);
        let Some(sub) = levels.iter().find(|sub| sub.level == head.level) else {
            return Err(Error::malformed(field, "the level table does not have it"));
        };
        if !(1..=MAX_RANK).contains(&head.rank) || head.sites.len() > 2 * self.shape.layers {
            return Err(Error::malformed(field, format!("a rank of {} at {} sites", head.rank, head.sites.len())));
        }
        let (rank, outputs) = (head.rank, self.shape.dim);
        // A table that does not fit the model has not been checked yet: no product may overflow on it.
        let sizes: Vec<usize> = head
            .sites
            .iter()
            .map(|(layer, site)| Package::inputs(self.shape, sub, *layer, *site).min(MAX_SIZE * 64))
            .collect();
        let n_codes = sizes.iter().map(|inputs| rank * inputs + rank * outputs + outputs).sum::<usize>();
        let codes = self.bytes(&format!("adapters.{}.codes", head.level), Dtype::I8, &[n_codes])?;
        let scales =
            self.bytes(&format!("adapters.{}.scales", head.level), Dtype::F32, &[sizes.len() * (2 * rank + 1)])?;
        let mut codes = codes.iter().map(|byte| *byte as i8);
        let mut scales = scales.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let mut sites = Vec::with_capacity(sizes.len());
        for ((layer, site), inputs) in head.sites.iter().zip(sizes) {
            let mut take = |n: usize| codes.by_ref().take(n).collect::<Vec<i8>>();
            let (a, b, c) = (take(rank * inputs), take(rank * outputs), take(outputs));
            let mut scale = |n: usize| scales.by_ref().take(n).collect::<Vec<f32>>();
            let (a_scales, b_scales, c_scale) = (scale(rank), scale(rank), scale(1));
            let c_scale = c_scale.first().copied().unwrap_or(f32::NAN);
            sites.push((*layer, *site, Adapter { rank, inputs, outputs, a, a_scales, b, b_scales, c, c_scale }));
        }
        Ok(LevelAdapters { level: head.level, rank, sites })
    }
}
