//! A package from bytes, checked.

use safetensors::tensor::Dtype;

use super::{Adapter, AdaptersHead, FILE, Head, LevelAdapters, Package, Shape, VERSION, malformed};
use crate::container::Container;
use crate::{Error, LayerOrder, LayerUnits, SubModel};

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
        let file = Container::open(FILE, VERSION, bytes)?;
        let head: Head = file.head()?;
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
            return Err(malformed("tensors", format!("{}, the head names {tensors}", file.len())));
        }
        package.check()?;
        Ok(package)
    }

    /// Whether all parts fit each other.
    pub(super) fn check(&self) -> Result<(), Error> {
        check_shape(&self.shape)?;
        let layers = self.shape.layers;
        if self.order.len() != layers {
            return Err(malformed("order", format!("{} layers, not {layers}", self.order.len())));
        }
        for (l, order) in self.order.iter().enumerate() {
            let sizes = (order.groups.len(), order.heads.len(), order.neurons.len());
            if sizes != (self.shape.groups, self.shape.heads, self.shape.neurons) {
                return Err(malformed(format!("order of layer {l}"), format!("{sizes:?} units")));
            }
            if let Some(problem) = order.problem() {
                return Err(malformed(format!("order of layer {l}"), problem));
            }
        }
        if !self.anchors.windows(2).all(|w| w[0] < w[1]) || self.anchors.last().is_some_and(|last| *last >= layers) {
            return Err(malformed("anchors", format!("{:?} of {layers} layers", self.anchors)));
        }
        let rising = self.levels.windows(2).all(|w| w[0].level < w[1].level);
        if !rising || self.levels.last().is_none_or(|last| last.level != 100) || self.levels[0].level == 0 {
            let levels: Vec<u32> = self.levels.iter().map(|sub| sub.level).collect();
            return Err(malformed("levels", format!("{levels:?} do not rise from above 0 to 100")));
        }
        self.levels.iter().try_for_each(|sub| self.check_level(sub))?;
        if !self.adapters.windows(2).all(|w| w[0].level < w[1].level) {
            return Err(malformed("adapters", "their levels do not rise"));
        }
        self.adapters.iter().try_for_each(|adapters| self.check_adapters(adapters))
    }

    fn check_level(&self, sub: &SubModel) -> Result<(), Error> {
        let field = || format!("level {}", sub.level);
        if sub.layers.len() != self.shape.layers {
            return Err(malformed(field(), format!("{} layers, not {}", sub.layers.len(), self.shape.layers)));
        }
        let fits = |n: usize, all: usize, step: usize| n == all || (n < all && n.is_multiple_of(step));
        let shape = self.shape.layer();
        for (l, units) in sub.layers.iter().enumerate() {
            let whole = *units == LayerUnits { groups: shape.groups, neurons: shape.neurons };
            if !fits(units.groups, shape.groups, shape.group_step)
                || !fits(units.neurons, shape.neurons, shape.neuron_step)
            {
                return Err(malformed(field(), format!("layer {l} cannot be cut to {units:?} of {shape:?}")));
            }
            if !whole && (sub.level == 100 || self.anchors.contains(&l)) {
                return Err(malformed(field(), format!("layer {l} keeps {units:?}, it should keep all")));
            }
        }
        Ok(())
    }

    fn check_adapters(&self, adapters: &LevelAdapters) -> Result<(), Error> {
        let field = || format!("adapters of level {}", adapters.level);
        let Some(sub) = self.level(adapters.level) else {
            return Err(malformed(field(), "the level table does not have it"));
        };
        if !(1..=MAX_RANK).contains(&adapters.rank) {
            return Err(malformed(field(), format!("a rank of {}", adapters.rank)));
        }
        let rising = adapters.sites.windows(2).all(|w| (w[0].0, w[0].1) < (w[1].0, w[1].1));
        if !rising || adapters.sites.last().is_some_and(|last| last.0 >= self.shape.layers) {
            return Err(malformed(field(), "their sites do not rise from the first layer to the last"));
        }
        for (layer, site, adapter) in &adapters.sites {
            let (rank, inputs) = (adapters.rank, Self::inputs(&self.shape, sub, *layer, *site));
            let lengths =
                [adapter.a.len(), adapter.b.len(), adapter.c.len(), adapter.a_scales.len(), adapter.b_scales.len()];
            let expected = [rank * inputs, rank * self.shape.dim, self.shape.dim, rank, rank];
            let sizes = (adapter.rank, adapter.inputs, adapter.outputs);
            if inputs == 0 || lengths != expected || sizes != (rank, inputs, self.shape.dim) {
                return Err(malformed(field(), format!("{site:?} of layer {layer}: {sizes:?}, {lengths:?}")));
            }
            let scales = adapter.a_scales.iter().chain(&adapter.b_scales).chain([&adapter.c_scale]);
            if scales.into_iter().any(|scale| !scale.is_finite() || *scale < 0.0) {
                return Err(malformed(field(), format!("{site:?} of layer {layer}: a scale is no number")));
            }
        }
        Ok(())
    }
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
        return Err(malformed("shape", format!("{shape:?}")));
    }
    Ok(())
}

struct Reader<'a> {
    file: &'a Container<'a>,
    shape: &'a Shape,
}

impl Reader<'_> {
    fn order(&self) -> Result<Vec<LayerOrder>, Error> {
        let shape = self.shape;
        let groups = self.file.words("order.groups", &[shape.layers, shape.groups])?;
        let heads = self.file.words("order.heads", &[shape.layers, shape.heads])?;
        let neurons = self.file.words("order.neurons", &[shape.layers, shape.neurons])?;
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
        let table = self.file.words("levels", &[levels.len(), layers, 2])?;
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
            return Err(malformed(field, "the level table does not have it"));
        };
        if !(1..=MAX_RANK).contains(&head.rank) || head.sites.len() > 2 * self.shape.layers {
            return Err(malformed(field, format!("a rank of {} at {} sites", head.rank, head.sites.len())));
        }
        let (rank, outputs) = (head.rank, self.shape.dim);
        // A table that does not fit the model has not been checked yet: no product may overflow on it.
        let sizes: Vec<usize> = head
            .sites
            .iter()
            .map(|(layer, site)| Package::inputs(self.shape, sub, *layer, *site).min(MAX_SIZE * 64))
            .collect();
        let n_codes = sizes.iter().map(|inputs| rank * inputs + rank * outputs + outputs).sum::<usize>();
        let codes = self.file.bytes(&format!("adapters.{}.codes", head.level), Dtype::I8, &[n_codes])?;
        let scales = format!("adapters.{}.scales", head.level);
        let scales = self.file.floats(&scales, &[sizes.len() * (2 * rank + 1)])?;
        let mut codes = codes.iter().map(|byte| *byte as i8);
        let mut scales = scales.into_iter();
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
