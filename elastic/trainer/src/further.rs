//! From a package to a better one: levels trained further, or made anew without whole layers.
//!
//! The order, the anchors, and the levels that are not named are the package's. So nothing has to be measured or searched
//! for again, and the model's file, which the order gives, stays the same to the bit.
//!
//! A level whose table stays goes on from its own adapters. One whose table is made anew starts from those of the nearest level
//! that leaves out the same MLPs and no more attention, with zeros for the inputs that it keeps beside; where there is none, they are
//! fitted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor, Var};
use concertina_elastic::package::Package;
use concertina_elastic::{LayerUnits, SubModel};

use crate::compare::read_package;
use crate::elasticize::{FORMATS, Order, Outcome, fitting_text, stem, train, training, write};
use crate::file;
use crate::levels::{Search, Without};
use crate::net::{Adapter, Adapters, LayerAdapters, Net};
use crate::ops::to_vec;
use crate::recover::fit::fit;
use crate::recover::package::{restored, stored};
use crate::recover::train::{Reading, Trainee};
use crate::rewrite::{Rewrite, rewrite};
use crate::watch::Watch;
use crate::workshop::Workshop;

/// What to do with a package.
#[derive(Debug, Clone)]
pub struct Further {
    /// The package.
    pub from: PathBuf,
    /// Levels that are trained, in this order; none: all below 100.
    pub levels: Vec<u32>,
    /// Levels whose tables are made anew, and what they leave out.
    pub leave_out: Vec<(u32, Without)>,
}

impl Further {
    /// How it is asked for on a command line, without this machine's paths.
    pub fn words(&self) -> String {
        let name = self.from.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let joined = |words: Vec<String>| words.join(",");
        let mut words = format!(" --from {name}");
        if !self.levels.is_empty() {
            words.push_str(&format!(" --level {}", joined(self.levels.iter().map(u32::to_string).collect())));
        }
        if !self.leave_out.is_empty() {
            let each = self.leave_out.iter().map(|(level, without)| format!("{level}={without}"));
            words.push_str(&format!(" --leave-out {}", joined(each.collect())));
        }
        words
    }
}

/// Train levels of a package further.
///
/// # Errors
/// If the package is of another model or does not have the levels, text cannot be had, or files cannot be written.
pub fn further(order: &Order, what: &Further, watch: &mut dyn Watch) -> Result<Outcome> {
    let shop = Workshop::open(&order.model, &order.out, &order.data, order.effort.clone())?;
    in_shop(&shop, what, &order.command, watch)
}

fn in_shop(shop: &Workshop, what: &Further, command: &str, watch: &mut dyn Watch) -> Result<Outcome> {
    let mut package = read_package(&what.from)?;
    ensure!(
        package.model.source_blake3 == shop.source,
        "{} was made for another model than {}",
        what.from.display(),
        shop.model_path.display()
    );
    let below_100 = || package.levels.iter().map(|sub| sub.level).filter(|level| *level < 100).collect();
    let levels: Vec<u32> = if what.levels.is_empty() { below_100() } else { what.levels.clone() };
    for level in levels.iter().chain(what.leave_out.iter().map(|(level, _)| level)) {
        ensure!(*level < 100 && package.level(*level).is_some(), "the package has no level {level} below 100");
    }
    let path = reordered(shop, &package)?;
    let net = Net::load(&file::open_model(&path)?)?;
    let mut known = Known::new();
    for stored in &package.adapters {
        let sub = package.level(stored.level).context("adapters of a level that is not there")?;
        known.insert(stored.level, (sub.layers.clone(), restored(stored, net.layers.len())?));
    }
    let mut calibration = 0;
    for &(level, without) in &what.leave_out {
        ensure!(levels.contains(&level), "level {level} is to leave out layers, but it is not among those to train");
        let sub = table_without(shop, &net, &package.anchors, level, without, watch)?;
        calibration += shop.effort.harm + shop.effort.search;
        if let Some(old) = package.levels.iter_mut().find(|old| old.level == level) {
            *old = sub;
        }
    }
    let training = training(&shop.effort);
    let questions = shop.questions()?;
    let mut lessons = None;
    let (mut steps, mut seconds) = (0, 0f64);
    for level in levels {
        let sub = package.level(level).context("a level that was there")?.clone();
        let kept = shop.folder.join(format!("adapters-{level}.safetensors"));
        let mut trainee = if kept.is_file() {
            let mut trainee = Trainee::new(Adapters::zeros(&net, &sub.layers, &package.anchors, shop.effort.rank)?);
            trainee.load(&kept)?;
            trainee
        } else {
            let begun = Instant::now();
            let start = match start(&net, &package.anchors, &sub, &known, shop.effort.rank)? {
                Some((of, adapters)) => {
                    watch.say(&format!("level {level} starts from the adapters of level {of}"));
                    adapters
                }
                None => {
                    watch.begin(&format!("fitting adapters of level {level}"), net.layers.len());
                    calibration += shop.effort.fit;
                    let text = fitting_text(shop)?;
                    let progress = &mut |done, _| watch.step(done, "");
                    fit(&net, &sub.layers, &package.anchors, &text, shop.effort.rank, progress)?
                }
            };
            let mut trainee = Trainee::new(start);
            trainee.took(begun.elapsed().as_secs_f32());
            trainee.save(&kept)?;
            trainee
        };
        if trainee.step() < training.steps {
            let lessons = match &mut lessons {
                Some(lessons) => lessons,
                none => none.insert(shop.lessons(&net, watch)?),
            };
            let reading = Reading { lessons, questions: &questions };
            train(&net, &sub, &mut trainee, reading, training, &kept, watch)?;
        }
        steps += trainee.step();
        seconds += f64::from(trainee.seconds());
        let adapters = trainee.adapters().clone();
        package.adapters.retain(|adapters| adapters.level != level);
        package.adapters.push(stored(level, &adapters)?);
        known.insert(level, (sub.layers, adapters));
    }
    package.adapters.sort_by_key(|adapters| adapters.level);
    let tokens = |windows: usize| (windows * shop.effort.window) as u64;
    let report = &mut package.report;
    report.command = command.into();
    report.seed = shop.effort.seed;
    report.calibration_tokens += tokens(calibration);
    report.training_tokens += tokens(2 * steps);
    report.seconds += shop.seconds() + seconds;
    write(shop, &package, path)
}

/// The model with its units in the package's order: as it lies there, or written now.
fn reordered(shop: &Workshop, package: &Package) -> Result<PathBuf> {
    let to = shop.folder.join(format!("{}.elastic.gguf", stem(&shop.model_path)));
    let is_there = || -> Result<bool> { Ok(to.is_file() && file::hash(&to)? == package.model.permuted_blake3) };
    if is_there()? {
        return Ok(to);
    }
    let down = FORMATS.into_iter().find(|dtype| format!("{dtype:?}") == package.model.down);
    let down =
        down.with_context(|| format!("the package wants `down` as {}, which is not written", package.model.down))?;
    let source = file::map(&shop.model_path)?;
    rewrite(&*source, &shop.model, &to, Rewrite { order: &package.order, energy: &[], down })?;
    ensure!(
        is_there()?,
        "the file that came of the package's order is not the one that it was made with: its `down` was quantised with \
         weights that the package does not hold. Make both anew, without --from"
    );
    Ok(to)
}

/// A level's table without some layers, and without attention of others.
fn table_without(
    shop: &Workshop,
    net: &Net,
    anchors: &[usize],
    level: u32,
    without: Without,
    watch: &mut dyn Watch,
) -> Result<SubModel> {
    let steps = shop.effort.search_steps;
    let basis = [shop.effort.harm, shop.effort.search, steps, without.layers, without.attention];
    shop.stage(&format!("level-{level}-without-{without}"), &basis, || {
        // Of the model as it came: that is what other measurements of influence are of.
        let influence = shop.influence(&Net::load(&shop.model)?, watch)?;
        let mut read = None;
        let lessons = shop.searched(net, &mut read)?;
        let mut search = Search::new(net, lessons, anchors, &[], shop.effort.seed + u64::from(level));
        search.leave_out(without, &influence)?;
        watch.begin(&format!("what level {level} keeps without {without} layers"), steps);
        let mut progress = |done: usize, _: usize, loss: f64| watch.step(done, &format!("divergence {loss:.4}"));
        search.level(level, None, &[], steps, &mut progress)
    })
}

/// Adapters by level, with what each layer keeps there.
type Known = BTreeMap<u32, (Vec<LayerUnits>, Adapters)>;

/// Adapters to start from, and whose they are: the level's own, or those of the nearest level that leaves out the same MLPs and no more
/// attention.
fn start(net: &Net, anchors: &[usize], sub: &SubModel, known: &Known, rank: usize) -> Result<Option<(u32, Adapters)>> {
    let shapes = Adapters::zeros(net, &sub.layers, anchors, rank)?;
    let mut near: Vec<_> = known.iter().collect();
    near.sort_by_key(|(level, _)| level.abs_diff(sub.level));
    for (level, (of, adapters)) in near {
        if let (true, Some(adapters)) = (is_like(of, &sub.layers), adapters.resized(&shapes)?) {
            return Ok(Some((*level, adapters)));
        }
    }
    Ok(None)
}

/// Whether `sub` leaves out the MLPs that `of` does, and all the attention that it does.
fn is_like(of: &[LayerUnits], sub: &[LayerUnits]) -> bool {
    let alike = |of: &LayerUnits, sub: &LayerUnits| {
        (of.neurons == 0) == (sub.neurons == 0) && (of.groups > 0 || sub.groups == 0)
    };
    of.iter().zip(sub).all(|(of, sub)| alike(of, sub))
}

impl Adapters {
    /// The same adapters for as many inputs as those of `shapes` have: an input more has zeros, one less is forgotten, and so are
    /// those beside attention that is left out. None if they are not beside the same matrices otherwise, or of another rank.
    ///
    /// # Errors
    /// Where candle refuses.
    pub fn resized(&self, shapes: &Adapters) -> Result<Option<Adapters>> {
        let mut layers = Vec::with_capacity(self.layers.len());
        for (own, like) in self.layers.iter().zip(&shapes.layers) {
            let mut layer = LayerAdapters::default();
            let of_attention = like.o.as_ref().and(own.o.as_ref());
            let each = [(of_attention, &like.o, &mut layer.o), (own.down.as_ref(), &like.down, &mut layer.down)];
            for (own, like, to) in each {
                *to = match (own, like) {
                    (None, None) => None,
                    (Some(own), Some(like)) if own.b.dims() == like.b.dims() => Some(resized(own, like.a.dim(1)?)?),
                    _ => return Ok(None),
                };
            }
            layers.push(layer);
        }
        Ok((layers.len() == shapes.layers.len()).then_some(Adapters { layers }))
    }
}

fn resized(adapter: &Adapter, inputs: usize) -> Result<Adapter> {
    let (rank, before) = adapter.a.dims2()?;
    let kept = inputs.min(before);
    let mut a = vec![0f32; rank * inputs];
    for (to, from) in a.chunks_exact_mut(inputs.max(1)).zip(to_vec(&adapter.a)?.chunks_exact(before.max(1))) {
        to[..kept].copy_from_slice(&from[..kept]);
    }
    // Variables of their own: the others are trained too.
    let copy = |var: &Var| Ok::<_, anyhow::Error>(Var::from_tensor(&var.as_tensor().copy()?)?);
    Ok(Adapter {
        a: Var::from_tensor(&Tensor::from_vec(a, (rank, inputs), &Device::Cpu)?)?,
        b: copy(&adapter.b)?,
        c: copy(&adapter.c)?,
    })
}

#[cfg(test)]
mod tests {
    use concertina_elastic::LayerOrder;
    use concertina_elastic::package::{ModelId, Report, Shape};
    use concertina_formats::testing::TinyModel;

    use super::*;
    use crate::data::{Kind, Text};
    use crate::net::Batch;
    use crate::workshop::Effort;

    /// Hears nothing but what is said.
    #[derive(Default)]
    struct Said(Vec<String>);

    impl Watch for Said {
        fn begin(&mut self, _: &str, _: usize) {}
        fn step(&mut self, _: usize, _: &str) {}
        fn say(&mut self, line: &str) {
            self.0.push(line.to_owned());
        }
    }

    fn shop(folder: &std::path::Path, steps: usize) -> Workshop {
        let text = |kind| Text { kind, text: "the quick brown fox jumps over the lazy dog ".repeat(40), answer: None };
        let texts = [Kind::Brown, Kind::Addresses, Kind::Questions].map(text).to_vec();
        let effort = Effort {
            window: 32,
            harm: 5,
            search: 5,
            search_steps: 2,
            fit: 5,
            train: 5,
            questions: 0,
            train_steps: steps,
            rank: 2,
            ..Effort::default()
        };
        let path = folder.join("tiny.gguf");
        Workshop::with_texts(&path, &folder.join("out"), folder, [texts.clone(), texts], effort).unwrap()
    }

    /// A model of four layers and a package of it: 50 and 60 % without layer 1, 80 % cut alone.
    fn made(folder: &std::path::Path) -> Package {
        let mut tiny = TinyModel::new("llama");
        (tiny.head_dim, tiny.dim, tiny.ffn, tiny.n_layers) = (32, 128, 96, 4);
        std::fs::write(folder.join("tiny.gguf"), tiny.gguf()).unwrap();
        let shop = shop(folder, 0);
        let order = LayerOrder {
            groups: vec![1, 0],
            heads: vec![3, 2, 0, 1],
            neurons: (0..96).map(|i| (i * 5 + 7) % 96).collect(),
        };
        let order = vec![order; 4];
        let to = folder.join("there.gguf");
        let how = Rewrite { order: &order, energy: &[], down: FORMATS[2] };
        rewrite(&*file::map(&shop.model_path).unwrap(), &shop.model, &to, how).unwrap();
        let net = Net::load(&file::open_model(&to).unwrap()).unwrap();
        let table = |level, groups, neurons| {
            let mut layers = net.full();
            layers[1..3].fill(LayerUnits { groups, neurons });
            if level < 80 {
                layers[1] = LayerUnits { groups: 0, neurons: 0 };
            }
            SubModel { level, layers }
        };
        let levels = vec![table(50, 1, 32), table(60, 1, 64), table(80, 1, 64), table(100, 2, 96)];
        let batch = Batch { ids: (0..64).map(|i| i * 7 % 90).collect(), tokens: 32 };
        let adapters = levels[..3].iter().map(|sub| {
            let fitted = fit(&net, &sub.layers, &[0, 3], &batch, 2, &mut |_, _| {}).unwrap();
            stored(sub.level, &fitted).unwrap()
        });
        let package = Package {
            model: ModelId {
                source_blake3: shop.source.clone(),
                permuted_blake3: file::hash(&to).unwrap(),
                down: format!("{:?}", FORMATS[2]),
            },
            shape: Shape {
                layers: 4,
                dim: 128,
                heads: 4,
                head_dim: 32,
                groups: 2,
                neurons: 96,
                group_step: 1,
                neuron_step: 32,
            },
            criterion: "effect".into(),
            order,
            anchors: vec![0, 3],
            adapters: adapters.collect(),
            levels,
            report: Report { training_tokens: 7, ..Report::default() },
        };
        std::fs::write(folder.join("from.safetensors"), package.to_bytes().unwrap()).unwrap();
        package
    }

    #[test]
    fn levels_go_on_from_a_package() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let before = made(folder);
        let what = |levels: &[u32], leave_out: &[(u32, &str)]| Further {
            from: folder.join("from.safetensors"),
            levels: levels.to_vec(),
            leave_out: leave_out.iter().map(|(level, without)| (*level, without.parse().unwrap())).collect(),
        };
        let mut said = Said::default();
        let outcome = in_shop(&shop(folder, 4), &what(&[50], &[]), "the command", &mut said).unwrap();
        let after = read_package(&outcome.package).unwrap();
        assert_eq!(file::hash(&outcome.model).unwrap(), before.model.permuted_blake3);
        assert_eq!(said.0, ["level 50 starts from the adapters of level 50"]);
        let same = (&after.order, &after.levels, after.adapters(60), after.adapters(80));
        assert_eq!(same, (&before.order, &before.levels, before.adapters(60), before.adapters(80)));
        assert_ne!(after.adapters(50), before.adapters(50));
        assert_eq!(after.report.command, "the command");
        assert_eq!(after.report.training_tokens, 7 + 4 * 2 * 32);
        // Again: nothing is left to do.
        let again = in_shop(&shop(folder, 4), &what(&[50], &[]), "the command", &mut said).unwrap();
        assert_eq!(read_package(&again.package).unwrap().adapters, after.adapters);
        assert_eq!(said.0.len(), 1, "{:?}", said.0);

        // A table made anew: of the layers that may be cut one is gone, and what is left of 80 % is less than the other is.
        let outcome = in_shop(&shop(folder, 2), &what(&[80], &[(80, "1")]), "", &mut said).unwrap();
        let anew = read_package(&outcome.package).unwrap();
        let table = &anew.level(80).unwrap().layers;
        assert_eq!(table[1..3].iter().filter(|units| units.groups == 0 && units.neurons == 0).count(), 1, "{table:?}");
        assert_eq!(table[1..3].iter().filter(|units| units.groups == 2 && units.neurons == 96).count(), 1, "{table:?}");
        assert!(anew.adapters(80).is_some() && anew.level(50) == before.level(50));
        let last = said.0.last().map(String::as_str);
        let is_fitted = table[1].groups > 0;
        assert_eq!(last == Some("level 80 starts from the adapters of level 60"), !is_fitted, "{:?}", said.0);

        let mut refused = |what: Further, named: &str| {
            let error = in_shop(&shop(folder, 0), &what, "", &mut said).expect_err("refused").to_string();
            assert!(error.contains(named), "{error}");
        };
        refused(what(&[70], &[]), "level 70");
        refused(what(&[100], &[]), "level 100");
        refused(what(&[50], &[(60, "1")]), "level 60");
        let mut other = TinyModel::new("llama");
        (other.seed, other.head_dim, other.dim, other.ffn, other.n_layers) = (2, 32, 128, 96, 4);
        std::fs::write(folder.join("tiny.gguf"), other.gguf()).unwrap();
        refused(what(&[50], &[]), "another model");
    }

    #[test]
    fn adapters_of_other_widths() {
        let folder = tempfile::tempdir().unwrap();
        let package = made(folder.path());
        let net = Net::load(&file::open_model(&folder.path().join("there.gguf")).unwrap()).unwrap();
        let of = |level| restored(package.adapters(level).unwrap(), 4).unwrap();
        let shapes = |level| Adapters::zeros(&net, &package.level(level).unwrap().layers, &[0, 3], 2).unwrap();
        let wider = of(50).resized(&shapes(60)).unwrap().expect("the same matrices");
        let back = wider.resized(&shapes(50)).unwrap().expect("the same matrices");
        let values = |adapters: &Adapters| -> Vec<Vec<f32>> {
            adapters.vars().iter().map(|var| to_vec(var.as_tensor()).unwrap()).collect()
        };
        assert_eq!(values(&back), values(&of(50)));
        let down = wider.layers[2].down.as_ref().unwrap();
        assert_eq!(down.a.dims(), [2, 64]);
        assert!(to_vec(&down.a).unwrap().chunks(64).all(|row| row[32..].iter().all(|v| *v == 0.0)));
        assert!(of(80).resized(&shapes(50)).unwrap().is_none(), "80 has adapters beside a layer that 50 leaves out");
    }
}
