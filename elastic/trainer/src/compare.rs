//! The table that says whether it is worth it: perplexity on held-out text by level and by way of cutting.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use concertina_elastic::package::Package;
use concertina_elastic::{LayerUnits, SubModel};
use serde::Serialize;

use crate::data::Windows;
use crate::elasticize::{Order, fitting_text};
use crate::evaluate::{Surprise, surprise};
use crate::file;
use crate::importance::Criterion;
use crate::levels::UnitWeights;
use crate::net::{Adapters, Net};
use crate::recover::fit::fit;
use crate::recover::package::restored;
use crate::watch::Watch;
use crate::workshop::Workshop;

/// What to compare.
#[derive(Debug, Clone)]
pub struct Compare {
    /// Windows of held-out text.
    pub windows: usize,
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
    /// Perplexity over all held-out text.
    pub perplexity: f64,
    /// Mean surprise in nats.
    pub surprise: Surprise,
}

/// All of it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    /// Cells, level by level.
    pub cells: Vec<Cell>,
}

/// Ways of cutting, in the order of the table.
const ROWS: [&str; 11] = [
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
];

impl Table {
    /// As text: a line a level.
    pub fn text(&self) -> String {
        let rows: Vec<&str> = ROWS.into_iter().filter(|row| self.cells.iter().any(|cell| cell.row == *row)).collect();
        let mut levels: Vec<u32> = self.cells.iter().map(|cell| cell.level).collect();
        levels.dedup();
        let mut out = format!("| level | weights | {} |\n|---|---|{}\n", rows.join(" | "), "---|".repeat(rows.len()));
        for level in levels {
            let cell = |row: &str| self.cells.iter().find(|cell| cell.level == level && cell.row == row);
            let weights = self.cells.iter().find(|cell| cell.level == level).map_or(1.0, |cell| cell.weights);
            let numbers = rows.iter().map(|row| cell(row).map_or("".into(), |c| format!("{:.2}", c.perplexity)));
            let numbers: Vec<String> = numbers.collect();
            out.push_str(&format!("| {level} | {:.1} % | {} |\n", weights * 100.0, numbers.join(" | ")));
        }
        out
    }
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
    let mut table = Comparison {
        windows: shop.held_out(what.windows)?,
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

struct Comparison<'a> {
    windows: Windows,
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
        let surprise = surprise(net, units, adapters, &self.windows)?;
        let cell = Cell {
            row: row.into(),
            level,
            weights: weights.all(units) as f64 / weights.all(&net.full()) as f64,
            perplexity: surprise.perplexity(),
            surprise,
        };
        self.watch.say(&format!("{row} at {level}: {:.2}", cell.perplexity));
        self.cells.push(cell);
        Ok(())
    }

    /// Our cut, with what each kind of recovery gives back.
    fn ours(&mut self, shop: &Workshop, net: &Net) -> Result<()> {
        let text = fitting_text(shop)?;
        for sub in self.levels.clone() {
            let stored = self.package.adapters(sub.level);
            if let (true, Some(stored)) = (self.wants("ours"), stored) {
                let adapters = restored(stored, net.layers.len())?;
                self.cell("ours", net, sub.level, &sub.layers, Some(&adapters))?;
            }
            let rank = stored.map_or(shop.effort.rank, |stored| stored.rank);
            for (row, rank) in [("fitted", rank), ("constants", 0)] {
                if self.wants(row) && sub.level < 100 {
                    let adapters = fit(net, &sub.layers, &text, rank, &mut |_, _| {})?;
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
        if !self.wants("layers dropped") {
            return Ok(());
        }
        let harm = shop.harm(net, self.watch)?;
        let mut by_influence: Vec<usize> = (0..net.layers.len()).collect();
        by_influence.sort_by(|a, b| harm.influence[*a].total_cmp(&harm.influence[*b]));
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
            self.cell("layers dropped", net, sub.level, &units, None)?;
        }
        Ok(())
    }
}
