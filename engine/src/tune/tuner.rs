//! The measurement of all roles of a model.

use concertina_shaders::{Role, VARIANTS, Variant};
use web_time::{Duration, Instant};

use super::measure::{Bed, Runs};
use super::{Choice, Family, MatrixRole, Parity, Table, Wanted, cutover, parity};
use crate::{Backend, Error, Result};

/// Rounds of measurement of the candidates of a role, in turn, so that a disturbance hits all alike.
const ROUNDS: usize = 5;
/// More of them for the candidates that are close to the best.
const CONFIRM: usize = 4;
/// Rounds after which a time is believed: before, other work on the machine may have had its hand in it.
const SURE: usize = 3;
/// A candidate this many times slower than the best is not measured again, whatever disturbed it.
const FAR_OFF: f64 = 4.0;
/// One this many times slower after it is believed is not measured again.
const HOPELESS: f64 = 1.5;
/// Candidates within this factor of the best are close to it.
const CLOSE: f64 = 1.2;

/// A variant in a role.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The variant.
    pub variant: &'static Variant,
    /// Nanoseconds of one product; `None` where it failed, or never was measured.
    pub ns: Option<f64>,
    /// Normalised error against the twin, or what is wrong.
    pub parity: Parity,
}

/// What was found for a role.
#[derive(Debug, Clone)]
pub struct RoleReport {
    /// The role.
    pub role: MatrixRole,
    /// The candidates, fastest first.
    pub candidates: Vec<Candidate>,
}

impl RoleReport {
    /// The fastest candidate that is right.
    pub fn chosen(&self) -> Option<&Candidate> {
        let right = self.candidates.iter().filter(|c| c.parity.is_ok() && c.ns.is_some());
        right.min_by(|a, b| a.ns.unwrap_or(f64::INFINITY).total_cmp(&b.ns.unwrap_or(f64::INFINITY)))
    }
}

/// What a tuning found.
#[derive(Debug, Clone)]
pub struct TuneReport {
    /// Roles that were measured now.
    pub roles: Vec<RoleReport>,
    /// What to run: also what was known before.
    pub table: Table,
    /// Seconds that it took.
    pub seconds: f64,
    /// Whether time sufficed for all roles.
    pub complete: bool,
}

/// How to measure.
pub struct Tuner {
    /// The candidates; those that the device does not run, or of another format, are passed over.
    pub variants: Vec<&'static Variant>,
    /// Time after which no further measurement begins. The first role is always finished.
    pub budget: Option<Duration>,
    /// What each variant's check found.
    checked: Vec<(&'static Variant, Parity)>,
}

impl Tuner {
    /// All variants in the table but for those that round activations to 8 bits, and, where `exact`, those that multiply in
    /// f16. Rounded activations are not offered unasked: they moved a model's perplexity by more than 0.3 %.
    pub fn new(exact: bool, budget: Option<Duration>) -> Self {
        Self::of(exact, budget, |v| !v.inexact)
    }

    /// The variants that are asked for by name, those that round activations among them unless `exact`.
    pub fn wanted(exact: bool, budget: Option<Duration>, wanted: &Wanted) -> Self {
        Self::of(exact, budget, |v| if wanted.is_free() { !v.inexact } else { wanted.wants(v) })
    }

    fn of(exact: bool, budget: Option<Duration>, offered: impl Fn(&Variant) -> bool) -> Self {
        let matrix = VARIANTS.iter().filter(|v| v.role == Role::Matrix && (!exact || v.exact()) && offered(v));
        Self { variants: matrix.collect(), budget, checked: Vec::new() }
    }

    /// Measure the `roles` that `known` lacks. `progress` hears of roles done and roles in all.
    ///
    /// # Errors
    /// If the device is lost, or has no memory for a measurement.
    pub async fn run(
        &mut self,
        backend: &mut Backend,
        roles: &[MatrixRole],
        known: Table,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<TuneReport> {
        let begun = Instant::now();
        let budget = self.budget;
        let late = || budget.is_some_and(|budget| begun.elapsed() >= budget);
        let mut report = TuneReport { roles: Vec::new(), table: known, seconds: 0.0, complete: true };
        let total = roles.len() + 1;
        for (i, role) in roles.iter().enumerate() {
            progress(i, total);
            if report.table.measured(role).is_some() {
                continue;
            }
            if late() && !report.roles.is_empty() {
                report.complete = false;
                continue;
            }
            let found = self.role(backend, role, &late).await?;
            if let Some((variant, ns)) = found.chosen().and_then(|c| Some((c.variant, c.ns?))) {
                let (shape, family, rows) = (role.shape, role.family, role.rows);
                report.table.choices.push(Choice { shape, family, variant, ns, rows });
            }
            report.roles.push(found);
        }
        progress(roles.len(), total);
        if report.complete && !report.table.cutovers {
            report.complete = cutover::measure(backend, roles, &mut report.table, &late).await?;
        }
        progress(total, total);
        backend.forget_pipelines();
        report.seconds = begun.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Check a variant against its twin; once is enough.
    ///
    /// # Errors
    /// If the device is lost.
    pub async fn check(&mut self, backend: &mut Backend, variant: &'static Variant) -> Result<Parity> {
        if let Some((_, parity)) = self.checked.iter().find(|(v, _)| std::ptr::eq(*v, variant)) {
            return Ok(parity.clone());
        }
        let parity = parity::check(backend, variant).await?;
        self.checked.push((variant, parity.clone()));
        Ok(parity)
    }

    async fn role(&mut self, backend: &mut Backend, role: &MatrixRole, late: &dyn Fn() -> bool) -> Result<RoleReport> {
        let fits = |v: &&&'static Variant| v.format == Some(role.shape.format) && backend.runs(v);
        let mut variants: Vec<&'static Variant> = self.variants.iter().filter(fits).copied().collect();
        // Likely ones first: what is far behind them is soon left alone.
        let many = role.family != Family::Narrow;
        variants.sort_by_key(|v| ((v.group[1] > 1) != many, !v.subgroups));
        let bed = Bed::new(backend, role, role.rows).await?;
        let done = self.candidates(backend, role, &variants, &bed, late).await;
        bed.free(backend);
        Ok(RoleReport { role: *role, candidates: done? })
    }

    async fn candidates(
        &mut self,
        backend: &mut Backend,
        role: &MatrixRole,
        variants: &[&'static Variant],
        bed: &Bed,
        late: &dyn Fn() -> bool,
    ) -> Result<Vec<Candidate>> {
        let mut found: Vec<(Candidate, Option<Runs>)> = Vec::new();
        for variant in variants {
            let best = found.iter().filter_map(|(c, _)| c.ns).fold(f64::INFINITY, f64::min);
            let mut parity = self.check(backend, variant).await?;
            let runs = match &parity {
                Err(_) => None,
                Ok(_) => match bed.candidate(backend, variant, role.rows, FAR_OFF * best).await {
                    Ok(runs) => Some(runs),
                    Err(lost @ Error::DeviceLost(_)) => return Err(lost),
                    Err(refused) => {
                        parity = Err(refused.to_string());
                        None
                    }
                },
            };
            found.push((Candidate { variant, ns: runs.as_ref().map(Runs::ns), parity }, runs));
        }
        let best =
            |found: &[(Candidate, Option<Runs>)]| found.iter().filter_map(|(c, _)| c.ns).fold(f64::INFINITY, f64::min);
        for round in 1..ROUNDS + CONFIRM {
            let factor = match round {
                _ if round < SURE => FAR_OFF,
                _ if round < ROUNDS => HOPELESS,
                // What is nearly as fast as the best is measured some more, so that noise decides less.
                _ => CLOSE,
            };
            let limit = factor * best(&found);
            for (candidate, runs) in &mut found {
                // Late is late only after every candidate had its first turns.
                let on_time = round < SURE || !late();
                let Some(runs) = runs.as_mut().filter(|runs| runs.ns() <= limit && on_time) else { continue };
                runs.again(backend, bed).await?;
                candidate.ns = Some(runs.ns());
            }
        }
        let mut candidates: Vec<Candidate> = found.into_iter().map(|(candidate, _)| candidate).collect();
        candidates.sort_by(|a, b| a.ns.unwrap_or(f64::INFINITY).total_cmp(&b.ns.unwrap_or(f64::INFINITY)));
        Ok(candidates)
    }

    /// Check one variant and measure it in a role: what reloading a shader asks for.
    ///
    /// # Errors
    /// If the device is lost, or has no memory for the measurement.
    pub async fn trial(
        &mut self,
        backend: &mut Backend,
        role: &MatrixRole,
        variant: &'static Variant,
    ) -> Result<Candidate> {
        let bed = Bed::new(backend, role, role.rows).await?;
        let done = self.candidates(backend, role, &[variant], &bed, &|| false).await;
        bed.free(backend);
        done?.pop().ok_or_else(|| Error::Gpu("no candidate was measured".into()))
    }
}
