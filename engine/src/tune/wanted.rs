//! Matrix kernels by name: what those who work on kernels need to see what one of them does in a whole model.

use concertina_shaders::{Role, Variant};

use super::{Family, Shape};

/// Which matrix kernels to run. `CONCERTINA_KERNELS` has beginnings of names of variants with commas between, preferred ones
/// first: `matmul_i8,matvec_i8`. Others run only where none of these can.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    prefixes: Vec<String>,
}

impl Wanted {
    /// What the environment asks for.
    pub fn by_environment() -> Self {
        #[cfg(not(target_arch = "wasm32"))]
        let text = crate::native::env("CONCERTINA_KERNELS").unwrap_or_default();
        #[cfg(target_arch = "wasm32")]
        let text = String::new();
        Self::of(&text)
    }

    /// What a list asks for.
    pub fn of(list: &str) -> Self {
        Self { prefixes: list.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect() }
    }

    /// Whether nothing is asked for: the choice is free.
    pub fn is_free(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// Which beginning a variant has.
    fn rank(&self, variant: &Variant) -> Option<usize> {
        self.prefixes.iter().position(|prefix| variant.name.starts_with(prefix.as_str()))
    }

    /// Whether a variant is asked for, or the choice is free.
    pub fn wants(&self, variant: &Variant) -> bool {
        self.is_free() || self.rank(variant).is_some()
    }

    /// The first of what is asked for: of kernels for many rows where the family has many, else for one, if there is such.
    pub fn pick(
        &self,
        variants: impl Iterator<Item = &'static Variant>,
        shape: &Shape,
        family: Family,
    ) -> Option<&'static Variant> {
        let fits = |v: &&'static Variant| v.role == Role::Matrix && v.format == Some(shape.format);
        let many = family != Family::Narrow;
        variants
            .filter(fits)
            .filter_map(|v| Some(((v.group[1] > 1) != many, self.rank(v)?, v)))
            .min_by_key(|(other, rank, _)| (*other, *rank))
            .map(|(_, _, v)| v)
    }
}

#[cfg(test)]
mod tests {
    use concertina_shaders::{VARIANTS, WeightFormat};

    use super::super::Cut;
    use super::*;

    #[test]
    fn kernels_are_picked_by_name_and_batch() {
        let pick = |list: &str, format, family| {
            let shape = Shape { format, n: 64, k: 64, cut: Cut::Rows };
            Wanted::of(list).pick(VARIANTS.iter(), &shape, family).map(|v| v.name)
        };
        let (q4, f16) = (WeightFormat::Q4_1, WeightFormat::F16);
        assert_eq!(pick("matmul_i8, matvec_i8", q4, Family::Wide), Some("matmul_i8.q4_1"));
        assert_eq!(pick("matmul_i8,matvec_i8", q4, Family::Narrow), Some("matvec_i8.q4_1"));
        assert_eq!(pick("matmul_i8", q4, Family::Narrow), Some("matmul_i8.q4_1"), "better than what was not asked for");
        assert_eq!(pick("matmul_i8", f16, Family::Wide), None, "there is none");
        assert_eq!(pick("matmul_tile.q4_1.x16,matmul", q4, Family::Few), Some("matmul_tile.q4_1.x16"));
        assert_eq!(pick("", q4, Family::Few), None);
        assert!(Wanted::of(" ,").is_free() && Wanted::of("").wants(&VARIANTS[0]));
    }
}
