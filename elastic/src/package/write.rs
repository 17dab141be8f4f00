//! A package as bytes.

use safetensors::tensor::Dtype;

use super::{AdaptersHead, FILE, Head, Package, VERSION};
use crate::Error;
use crate::container::{Stored, to_bytes};

impl Package {
    /// The bytes of the file.
    ///
    /// # Errors
    /// If it is one that reading would refuse.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.check()?;
        let head = Head {
            version: VERSION,
            model: self.model.clone(),
            shape: self.shape.clone(),
            criterion: self.criterion.clone(),
            anchors: self.anchors.clone(),
            levels: self.levels.iter().map(|sub| sub.level).collect(),
            adapters: self
                .adapters
                .iter()
                .map(|level| AdaptersHead {
                    level: level.level,
                    rank: level.rank,
                    sites: level.sites.iter().map(|(layer, site, _)| (*layer, *site)).collect(),
                })
                .collect(),
            report: self.report.clone(),
        };
        let (layers, shape) = (self.shape.layers, &self.shape);
        let words = |values: Vec<u32>| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let order = |of: fn(&crate::LayerOrder) -> &Vec<u32>| words(self.order.iter().flat_map(of).copied().collect());
        let levels = self.levels.iter().flat_map(|sub| &sub.layers);
        let levels = words(levels.flat_map(|units| [units.groups as u32, units.neurons as u32]).collect());
        let mut tensors: Vec<Stored> = vec![
            ("order.groups".into(), Dtype::U32, vec![layers, shape.groups], order(|o| &o.groups)),
            ("order.heads".into(), Dtype::U32, vec![layers, shape.heads], order(|o| &o.heads)),
            ("order.neurons".into(), Dtype::U32, vec![layers, shape.neurons], order(|o| &o.neurons)),
            ("levels".into(), Dtype::U32, vec![self.levels.len(), layers, 2], levels),
        ];
        for level in &self.adapters {
            let (mut codes, mut scales) = (Vec::new(), Vec::new());
            for (_, _, adapter) in &level.sites {
                for part in [&adapter.a, &adapter.b, &adapter.c] {
                    codes.extend(part.iter().map(|code| *code as u8));
                }
                let all = adapter.a_scales.iter().chain(&adapter.b_scales).chain([&adapter.c_scale]);
                scales.extend(all.flat_map(|scale| scale.to_le_bytes()));
            }
            let name = |part: &str| format!("adapters.{}.{part}", level.level);
            tensors.push((name("scales"), Dtype::F32, vec![scales.len() / 4], scales));
            tensors.push((name("codes"), Dtype::I8, vec![codes.len()], codes));
        }
        to_bytes(FILE, &head, &tensors)
    }
}
