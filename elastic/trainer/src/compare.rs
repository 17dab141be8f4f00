//! The table that says whether it is worth it: perplexity on held-out text and accuracy on questions, by level and by way
//! of cutting.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use concertina_elastic::package::Package;
use concertina_elastic::{LayerUnits, SubModel};
use serde::{Deserialize, Serialize};

use crate::data::Windows;
use crate::elasticize::{Order, fitting_text};
use crate::evaluate::{Surprise, surprise};
use crate::exam::{Exam, Marks};
use crate::file;
use crate::importance::Criterion;
use crate::levels::UnitWeights;
use crate::net::{Adapters, Net};
use crate::ops::to_vec;
use crate::records::Records;
use crate::recover::fit::fit;
use crate::recover::package::restored;
use crate::stats::mean;
use crate::watch::Watch;
use crate::workshop::Workshop;

/// What to compare.
#[derive(Debug, Clone)]
pub struct Compare {
    /// Windows of held-out text; none: no perplexity.
    pub windows: usize,
    /// A file of multiple-choice requests, or [`HELD_OUT`], and how many of its questions are asked.
    pub exam: Option<(PathBuf, usize)>,
    /// Of the row "layers as fast": a level, and how many layers are left of the whole model when it is as fast.
    pub as_fast: Vec<(u32, usize)>,
    /// Levels; none: all of the package.
    pub levels: Vec<u32>,
    /// Rows; none: all.
    pub rows: Vec<String>,
}

/// A way of cutting at a level.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// The way.
    pub row: String,
    /// The level.
    pub level: u32,
    /// Share of all layers' weights that are kept.
    pub weights: f64,
    /// Mean surprise in nats over all held-out text.
    pub surprise: Option<Surprise>,
    /// Questions answered rightly, and all of them.
    pub right: Option<(usize, usize)>,
    /// Which.
    #[serde(skip)]
    pub marks: Option<Marks>,
}

/// What is kept of the marks of a cell, so that a run that was stopped need not ask again.
#[derive(Serialize, Deserialize)]
struct Kept {
    row: String,
    level: u32,
    /// BLAKE3 of what answered: units and adapters.
    part: String,
    marks: Marks,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    /// Cells, level by level.
    pub cells: Vec<Cell>,
}

/// In place of a file: questions of the train splits that nothing is trained on, for choices between ways to train.
pub const HELD_OUT: &str = "held-out";

/// Ways of cutting, in the order of the table.
const ROWS: [&str; 13] = [
    "ours",
    "fitted",
    "constants",
    "unrecovered",
    "even cut",
    "gradient",
    "activation",
    "magnitude",
    "random",
    "none",
    "layers dropped",
    "layers as fast",
    "halves dropped",
];

impl Table {
    /// As text: a line a level. Perplexity; percent of questions answered rightly; surprise at the right choice in nats. Of
    /// answers, the way's own with the 95 % interval's half width, and of all but the first way by how much the first has
    /// more, question by question.
    pub fn text(&self) -> String {
        let perplexity = self.rows_of(|cell, _| Some(format!("{:.2}", cell.surprise.as_ref()?.perplexity())));
        let accuracy = self.rows_of(|cell, first| beside(cell, first, share, 100.0, 1));
        let nats =
            self.rows_of(|cell, first| beside(cell, first, |cell| Some(cell.marks.as_ref()?.nats.clone()), 1.0, 3));
        [perplexity, accuracy, nats].into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    /// A table of what `write` makes of cells, if it makes anything of any; it is given the level's first way too.
    fn rows_of(&self, write: impl Fn(&Cell, Option<&Cell>) -> Option<String>) -> Option<String> {
        let rows: Vec<&str> = ROWS.into_iter().filter(|row| self.cells.iter().any(|cell| cell.row == *row)).collect();
        let mut levels: Vec<u32> = self.cells.iter().map(|cell| cell.level).collect();
        levels.dedup();
        let mut out = format!("| level | weights | {} |\n|---|---|{}\n", rows.join(" | "), "---|".repeat(rows.len()));
        let mut any = false;
        for level in levels {
            let cell = |row: &str| self.cells.iter().find(|cell| cell.level == level && cell.row == row);
            let first = rows.iter().find_map(|row| cell(row));
            let texts = rows.iter().map(|row| cell(row).and_then(|cell| write(cell, first)).unwrap_or_default());
            let texts: Vec<String> = texts.collect();
            any |= texts.iter().any(|text| !text.is_empty());
            let weights = first.map_or(1.0, |cell| cell.weights);
            out.push_str(&format!("| {level} | {:.1} % | {} |\n", weights * 100.0, texts.join(" | ")));
        }
        any.then_some(out)
    }
}

/// A mean over questions with its interval, and how much more the level's first way has.
fn beside(
    cell: &Cell,
    first: Option<&Cell>,
    of: impl Fn(&Cell) -> Option<Vec<f64>>,
    scale: f64,
    digits: usize,
) -> Option<String> {
    let own = of(cell)?;
    let m = mean(&own);
    let text = format!("{:.digits$} ± {:.digits$}", m.mean * scale, m.within * scale);
    let Some(first) = first.filter(|first| first.row != cell.row).and_then(of) else { return Some(text) };
    let more: Vec<f64> = first.iter().zip(&own).map(|(a, b)| a - b).collect();
    let more = mean(&more);
    Some(format!("{text} ({:+.digits$} ± {:.digits$})", more.mean * scale, more.within * scale))
}

/// 1 for each question that was answered rightly, 0 for the others.
fn share(cell: &Cell) -> Option<Vec<f64>> {
    Some(cell.marks.as_ref()?.plain.iter().map(|right| f64::from(u8::from(*right))).collect())
}

/// Measure. The package and the reordered model must be there.
///
/// # Errors
/// If they are not, or a number cannot be measured.
pub fn compare(order: &Order, what: &Compare, watch: &mut dyn Watch) -> Result<Table> {
    let shop = Workshop::open(&order.model, &order.out, &order.data, order.effort.clone())?;
    let stem = order.model.file_stem().context("the model has no name")?.to_string_lossy().into_owned();
    let path = |suffix: &str| shop.folder.join(format!("{stem}.{suffix}"));
    let package = read_package(&path("elastic.safetensors"))?;
    let permuted_path = path("elastic.gguf");
    ensure!(file::hash(&permuted_path)? == package.model.permuted_blake3, "the package is not of the reordered model");
    let exam = match &what.exam {
        None => None,
        Some((path, questions)) => {
            let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let is_held_out = path.as_os_str() == HELD_OUT;
            let source = if is_held_out { HELD_OUT.into() } else { file::hash(path)? };
            let basis = format!("{}, questions {source}, {questions}, with parts", package.model.permuted_blake3);
            let records = Records::open(&shop.folder.join(format!("marks-{name}.jsonl")), &basis)?;
            let exam = if is_held_out {
                let held_out = shop.held_out_questions()?;
                Exam::of(&held_out[..(*questions).min(held_out.len())], &shop.model.tokenizer)?
            } else {
                Exam::open(path, &shop.model.tokenizer, *questions)?
            };
            Some((exam, records))
        }
    };
    let mut table = Comparison {
        windows: if what.windows > 0 { Some(shop.held_out(what.windows)?) } else { None },
        exam,
        what,
        levels: package
            .levels
            .iter()
            .filter(|sub| what.levels.is_empty() || what.levels.contains(&sub.level))
            .collect(),
        package: &package,
        cells: Vec::new(),
        watch,
    };
    let net = Net::load(&file::open_model(&permuted_path)?)?;
    table.ours(&shop, &net)?;
    table.even(&net)?;
    drop(net);
    let source = Net::load(&shop.model)?;
    table.dropped(&shop, &source)?;
    table.halves_dropped(&shop, &source)?;
    let orders = [Criterion::Gradient, Criterion::Activation, Criterion::Magnitude, Criterion::Random, Criterion::None];
    for criterion in orders {
        if table.wants(criterion.name()) {
            let units = shop.order(&source, criterion, table.watch)?;
            let net = source.permuted(&units)?;
            for sub in table.levels.clone() {
                table.cell(criterion.name(), &net, sub.level, &sub.layers, None)?;
            }
        }
    }
    let mut cells = table.cells;
    cells.sort_by_key(|cell| cell.level);
    Ok(Table { cells })
}

/// Read a package.
///
/// # Errors
/// If there is none, or it is refused.
pub fn read_package(path: &Path) -> Result<Package> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Package::from_bytes(&bytes).with_context(|| format!("{}", path.display()))
}

/// BLAKE3 of units and adapters, so that answers hold as long as both are the same.
fn part(units: &[LayerUnits], adapters: Option<&Adapters>) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for units in units {
        hasher.update(&(units.groups as u64).to_le_bytes()).update(&(units.neurons as u64).to_le_bytes());
    }
    for var in adapters.iter().flat_map(|adapters| adapters.vars()) {
        hasher.update(bytemuck::cast_slice(&to_vec(var.as_tensor())?));
    }
    Ok(hasher.finalize().to_hex().to_string())
}

struct Comparison<'a> {
    windows: Option<Windows>,
    exam: Option<(Exam, Records<Kept>)>,
    what: &'a Compare,
    levels: Vec<&'a SubModel>,
    package: &'a Package,
    cells: Vec<Cell>,
    watch: &'a mut dyn Watch,
}

impl Comparison<'_> {
    fn wants(&self, row: &str) -> bool {
        self.what.rows.is_empty() || self.what.rows.iter().any(|wanted| wanted == row)
    }

    fn cell(
        &mut self,
        row: &str,
        net: &Net,
        level: u32,
        units: &[LayerUnits],
        adapters: Option<&Adapters>,
    ) -> Result<()> {
        let weights = UnitWeights::of(net);
        let surprise = self.windows.as_ref().map(|windows| surprise(net, units, adapters, windows)).transpose()?;
        let marks = match &mut self.exam {
            None => None,
            Some((exam, records)) => {
                let part = part(units, adapters)?;
                let known = records.found.iter().find(|kept| kept.row == row && kept.part == part);
                Some(match known {
                    Some(kept) => kept.marks.clone(),
                    None => {
                        let marks = exam.marks(net, units, adapters)?;
                        records.add(Kept { row: row.into(), level, part, marks: marks.clone() })?;
                        marks
                    }
                })
            }
        };
        let weights = weights.all(units) as f64 / weights.all(&net.full()) as f64;
        let right = marks.as_ref().map(|m| (m.plain.iter().filter(|right| **right).count(), m.plain.len()));
        let cell = Cell { row: row.into(), level, weights, surprise, right, marks };
        let perplexity = cell.surprise.as_ref().map(|s| format!(" perplexity {:.2}", s.perplexity()));
        let accuracy = share(&cell).map(|s| format!(" accuracy {:.1} %", mean(&s).mean * 100.0));
        let found: String = [perplexity, accuracy].into_iter().flatten().collect();
        self.watch.say(&format!("{row} at {level}:{found}"));
        self.cells.push(cell);
        Ok(())
    }

    /// Our cut, with what each kind of recovery gives back.
    fn ours(&mut self, shop: &Workshop, net: &Net) -> Result<()> {
        let text = fitting_text(shop)?;
        for sub in self.levels.clone() {
            let stored = self.package.adapters(sub.level);
            // The whole model has no adapters: it is the row's reference.
            if self.wants("ours") && (stored.is_some() || sub.level == 100) {
                let adapters = stored.map(|stored| restored(stored, net.layers.len())).transpose()?;
                self.cell("ours", net, sub.level, &sub.layers, adapters.as_ref())?;
            }
            let rank = stored.map_or(shop.effort.rank, |stored| stored.rank);
            for (row, rank) in [("fitted", rank), ("constants", 0)] {
                if self.wants(row) && sub.level < 100 {
                    let adapters = fit(net, &sub.layers, &self.package.anchors, &text, rank, &mut |_, _| {})?;
                    self.cell(row, net, sub.level, &sub.layers, Some(&adapters))?;
                }
            }
            if self.wants("unrecovered") {
                self.cell("unrecovered", net, sub.level, &sub.layers, None)?;
            }
        }
        Ok(())
    }

    /// Our order, cut by the same share in every layer.
    fn even(&mut self, net: &Net) -> Result<()> {
        for sub in self.levels.clone() {
            if self.wants("even cut") {
                let even = SubModel::at_level(&net.shapes, sub.level, &self.package.anchors);
                self.cell("even cut", net, sub.level, &even.layers, None)?;
            }
        }
        Ok(())
    }

    /// Whole layers, those of least influence first (ShortGPT), until no more than our weights are left; it keeps the layer
    /// that crosses the line.
    fn dropped(&mut self, shop: &Workshop, net: &Net) -> Result<()> {
        if !self.wants("layers dropped") && !self.wants("layers as fast") {
            return Ok(());
        }
        let influence = shop.influence(net, self.watch)?;
        let mut by_influence: Vec<usize> = (0..net.layers.len()).collect();
        by_influence.sort_by(|a, b| influence[*a].total_cmp(&influence[*b]));
        let weights = UnitWeights::of(net);
        for sub in self.levels.clone() {
            let budget = weights.all(&sub.layers);
            let mut units = net.full();
            for &layer in &by_influence {
                if weights.all(&units) - weights.layer(units[layer]) < budget {
                    break;
                }
                units[layer] = LayerUnits { groups: 0, neurons: 0 };
            }
            if self.wants("layers dropped") {
                self.cell("layers dropped", net, sub.level, &units, None)?;
            }
            if let Some((_, left)) = self.what.as_fast.iter().find(|(level, _)| *level == sub.level) {
                let mut units = net.full();
                let gone = units.len().saturating_sub(*left);
                by_influence[..gone].iter().for_each(|&layer| units[layer] = LayerUnits { groups: 0, neurons: 0 });
                self.cell("layers as fast", net, sub.level, &units, None)?;
            }
        }
        Ok(())
    }

    /// Halves of layers, in the order that was searched for and nothing else: as many as leave no more than our weights.
    fn halves_dropped(&mut self, shop: &Workshop, net: &Net) -> Result<()> {
        if !self.wants("halves dropped") {
            return Ok(());
        }
        let scores = shop.scores(net, Criterion::Effect, self.watch)?;
        let halves = shop.halves(net, &self.package.anchors, &scores, &mut None, self.watch)?;
        let weights = UnitWeights::of(net);
        for sub in self.levels.clone() {
            let (budget, mut units) = (weights.all(&sub.layers), net.full());
            for out in &halves {
                if weights.all(&units) > budget {
                    out.half.take_from(&mut units[out.layer]);
                }
            }
            self.cell("halves dropped", net, sub.level, &units, None)?;
        }
        Ok(())
    }
}
