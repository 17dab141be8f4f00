//! What was found: the variant of each role, and from how many rows on each family begins.

use concertina_shaders::{Role, VARIANTS, Variant};
use serde_json::{Value, json};

use super::{Family, MatrixRole, Shape};

/// Rows from which a batch is not narrow any more, where nothing was measured.
const DEFAULT_FEW_FROM: usize = 3;
/// Rows from which a batch is wide, where nothing was measured.
const DEFAULT_WIDE_FROM: usize = 17;

/// The fastest variant of a role.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// The matrix.
    pub shape: Shape,
    /// The batch.
    pub family: Family,
    /// The variant.
    pub variant: &'static Variant,
    /// Nanoseconds of one product.
    pub ns: f64,
    /// Rows that it was measured with.
    pub rows: usize,
}

/// The choices for a model on an adapter.
#[derive(Debug, Clone)]
pub struct Table {
    /// One for each role that was measured.
    pub choices: Vec<Choice>,
    /// Rows from which a batch runs the kernels for a few.
    pub few_from: usize,
    /// Rows from which a batch runs the kernels for many.
    pub wide_from: usize,
    /// Whether the cutovers were measured.
    pub cutovers: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self { choices: Vec::new(), few_from: DEFAULT_FEW_FROM, wide_from: DEFAULT_WIDE_FROM, cutovers: false }
    }
}

impl Table {
    /// The choice for a shape, or for the one nearest to it: sub-models have prefixes of the measured shapes.
    pub fn pick(&self, shape: &Shape, family: Family) -> Option<&Choice> {
        let distance = |choice: &Choice| {
            let ratio = |a: usize, b: usize| (a.max(1) as f64 / b.max(1) as f64).ln().abs();
            ratio(choice.shape.n, shape.n) + ratio(choice.shape.k, shape.k)
        };
        self.choices
            .iter()
            .filter(|c| c.family == family && c.shape.format == shape.format && c.shape.cut == shape.cut)
            .min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    /// The choice that was measured for just this role.
    pub fn measured(&self, role: &MatrixRole) -> Option<&Choice> {
        self.choices.iter().find(|c| c.shape == role.shape && c.family == role.family && c.rows == role.rows)
    }

    /// The family of a batch.
    pub fn family(&self, rows: usize) -> Family {
        match rows {
            _ if rows >= self.wide_from => Family::Wide,
            _ if rows >= self.few_from => Family::Few,
            _ => Family::Narrow,
        }
    }

    /// Whether nothing is left to measure.
    pub fn complete(&self, roles: &[MatrixRole]) -> bool {
        self.cutovers && roles.iter().all(|role| self.measured(role).is_some())
    }

    /// As text, under its key.
    pub(crate) fn to_text(&self, key: &str) -> String {
        let choices: Vec<Value> = self
            .choices
            .iter()
            .map(|c| {
                json!({
                    "shape": c.shape.to_string(), "family": c.family.name(), "rows": c.rows,
                    "variant": c.variant.name, "ns": c.ns,
                })
            })
            .collect();
        let table = json!({
            "key": key, "choices": choices,
            "few_from": self.few_from, "wide_from": self.wide_from, "cutovers": self.cutovers,
        });
        format!("{table:#}\n")
    }

    /// What [`Table::to_text`] wrote for the same key and `roles`. `None` where anything is amiss: then it is measured again.
    pub(crate) fn from_text(text: &str, key: &str, roles: &[MatrixRole]) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        if value["key"].as_str()? != key {
            return None;
        }
        let rows = |name: &str| value[name].as_u64().and_then(|rows| usize::try_from(rows).ok()).filter(|r| *r >= 2);
        let (few_from, wide_from) = (rows("few_from")?, rows("wide_from")?);
        if few_from > wide_from {
            return None;
        }
        let mut table = Self { choices: Vec::new(), few_from, wide_from, cutovers: value["cutovers"].as_bool()? };
        for choice in value["choices"].as_array()? {
            let is_of = |role: &&MatrixRole| {
                choice["shape"] == role.shape.to_string()
                    && choice["family"] == role.family.name()
                    && choice["rows"] == role.rows
            };
            let role = roles.iter().find(is_of)?;
            let name = choice["variant"].as_str()?;
            let fits = |v: &&Variant| v.role == Role::Matrix && v.format == Some(role.shape.format);
            let variant = VARIANTS.iter().find(|v| v.name == name).filter(fits)?;
            let ns = choice["ns"].as_f64().filter(|ns| *ns > 0.0 && ns.is_finite())?;
            table.choices.push(Choice { shape: role.shape, family: role.family, variant, ns, rows: role.rows });
        }
        Some(table)
    }
}

#[cfg(test)]
mod tests {
    use concertina_shaders::{WeightFormat, variant};

    use super::super::Cut;
    use super::*;

    fn role(n: usize, family: Family) -> MatrixRole {
        let shape = Shape { format: WeightFormat::Q4_1, n, k: 576, cut: Cut::Rows };
        MatrixRole { shape, family, rows: 1, count: 1 }
    }

    fn table() -> Table {
        let choice = |n, name| {
            let role = role(n, Family::Narrow);
            let variant = variant(name).expect("in the table");
            Choice { shape: role.shape, family: role.family, variant, ns: 1e3, rows: role.rows }
        };
        let choices = vec![choice(192, "matvec.q4_1"), choice(1536, "matvec_wide.q4_1")];
        Table { choices, few_from: 2, wide_from: 9, cutovers: true }
    }

    #[test]
    fn the_nearest_shape_stands_in() {
        let (table, near) = (table(), role(1000, Family::Narrow).shape);
        assert_eq!(table.pick(&near, Family::Narrow).map(|c| c.variant.name), Some("matvec_wide.q4_1"));
        assert!(table.pick(&near, Family::Wide).is_none());
        assert!(table.pick(&Shape { cut: Cut::Cols, ..near }, Family::Narrow).is_none());
    }

    #[test]
    fn text_comes_back_and_damage_is_refused() {
        let roles = [role(192, Family::Narrow), role(1536, Family::Narrow)];
        let text = table().to_text("k");
        let back = Table::from_text(&text, "k", &roles).expect("whole");
        assert_eq!((back.choices.len(), back.few_from, back.wide_from), (2, 2, 9));
        assert!(back.complete(&roles));
        assert!(Table::from_text(&text, "another driver", &roles).is_none());
        assert!(Table::from_text(&text, "k", &roles[..1]).is_none(), "a role that is not the model's");
        for (from, to) in
            [("matvec.q4_1", "matvec.q4_9"), ("matvec.q4_1", "matvec.q8_0"), ("\"wide_from\": 9", "\"x\": 9")]
        {
            assert!(text.contains(from), "{from}: {text}");
            assert!(Table::from_text(&text.replace(from, to), "k", &roles).is_none(), "{from} to {to}");
        }
        for end in 0..text.trim_end().len() {
            assert!(Table::from_text(&text[..end], "k", &roles).is_none(), "cut at {end}");
        }
    }
}
