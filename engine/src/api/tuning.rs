//! Measurements of the engine's own parts: tuning, the time of every dispatch, the adapter's ceilings.

use concertina_formats::Model;
use concertina_kv::Widths;
use concertina_shaders::Variant;
use web_time::Duration;

use super::{Context, Engine, Options};
use crate::cost::Dispatch;
use crate::forward::{self, BatchRow, Tail};
use crate::roofline::{Ceilings, ceilings};
use crate::tune::{Candidate, MatrixRole, Table, Tune, TuneReport, Tuner, Wanted, key, matrix_roles};
use crate::{Backend, Error, Result};

/// Time that the first use of a model on an adapter may spend on measuring.
const AUTO_BUDGET: Duration = Duration::from_secs(5);

impl Engine {
    /// What kernels are picked by: empty where nothing was measured.
    pub fn tuning(&self) -> Table {
        self.device.as_ref().map_or_else(Table::default, |device| device.forward.table().clone())
    }

    /// The roles of matrix kernels in this model.
    pub fn matrix_roles(&self) -> Vec<MatrixRole> {
        matrix_roles(&self.model, self.options.rows())
    }

    /// Measure every candidate of every role, give the result to the host for the next start, and report it. This engine
    /// goes on with the kernels that it has. `budget`: time after which no further role is begun. Where `CONCERTINA_KERNELS`
    /// names kernels (see [`Wanted`]), only those are measured and nothing is kept.
    ///
    /// # Errors
    /// If the device fails or has no memory for a measurement; on the CPU twins.
    pub async fn tune(
        &mut self,
        budget: Option<Duration>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<TuneReport> {
        let roles = self.matrix_roles();
        let (exact, host) = (self.options.exact, self.options.tune_host.clone());
        let backend = &mut self.device().await?.backend;
        let Some(info) = backend.adapter().cloned() else {
            return Err(Error::Unsupported("tuning the CPU twins: they have one form of each kernel".into()));
        };
        let wanted = Wanted::by_environment();
        let mut tuner = Tuner::wanted(exact, budget, &wanted);
        let report = tuner.run(backend, &roles, Table::default(), progress).await?;
        if let Some(host) = host.filter(|_| wanted.is_free()) {
            let key = key(&info, exact, &roles);
            host.store(&key, &report.table.to_text(&key));
        }
        Ok(report)
    }

    /// Check a variant, also one that is in no table, against its twin and measure it in a role.
    ///
    /// # Errors
    /// If the device fails or has no memory for the measurement; a variant that the device refuses, or that is wrong, is a
    /// [`Candidate`] that says so.
    pub async fn trial(&mut self, role: &MatrixRole, variant: &'static Variant) -> Result<Candidate> {
        let exact = self.options.exact;
        Tuner::new(exact, None).trial(&mut self.device().await?.backend, role, variant).await
    }

    /// What the adapter can do at best.
    ///
    /// # Errors
    /// If the device fails or has no memory for the measurement; on the CPU twins.
    pub async fn ceilings(&mut self) -> Result<Ceilings> {
        ceilings(&mut self.device().await?.backend).await
    }

    /// GPU time and cost of each dispatch for the last `rows` tokens of `tokens`, after the others were prefilled: all
    /// layers, the head and the sampling of one token. `passes` of them, after one that does not count.
    ///
    /// # Errors
    /// As [`Engine::logits`], and where the adapter has no timestamps.
    pub async fn profile(&mut self, tokens: &[u32], rows: usize, level: u32, passes: usize) -> Result<Vec<Profiled>> {
        let (_context, batch, widths) = self.last_rows(tokens, rows, level).await?;
        let device = self.device().await?;
        let mut found = Vec::new();
        for pass in 0..=passes {
            let (timings, whole_ns, load) = device.forward.profile(&mut device.backend, level, &batch, widths).await?;
            if pass > 0 {
                let dispatches = timings.into_iter().map(|timing| Dispatch::of(timing, &load)).collect();
                found.push(Profiled { dispatches, whole_ns });
            }
        }
        Ok(found)
    }
}

impl Engine {
    /// GPU time of every kind of product of the layers, for the last `rows` tokens of `tokens`, with each kernel that can stand
    /// in its place: in the pass itself, so that the work around it and the weights' way to it are those of the pass.
    ///
    /// # Errors
    /// As [`Engine::profile`].
    pub async fn rivals(&mut self, tokens: &[u32], rows: usize, level: u32, rounds: usize) -> Result<Vec<Rival>> {
        let (_context, batch, widths) = self.last_rows(tokens, rows, level).await?;
        let device = self.device().await?;
        let (found, load) = device.forward.rivals(&mut device.backend, level, &batch, widths, rounds).await?;
        let told = |rival: forward::Rival| {
            let rounds = rival.rounds.into_iter().map(|timing| Dispatch::of(timing, &load)).collect();
            Rival { own: rival.own, count: rival.count, rounds }
        };
        Ok(found.into_iter().map(told).collect())
    }

    /// The last `rows` tokens of `tokens` as a batch, behind the others. The context keeps what they read.
    async fn last_rows(&mut self, tokens: &[u32], rows: usize, level: u32) -> Result<(Context, Vec<BatchRow>, Widths)> {
        let most = self.options.rows();
        let rows = rows.clamp(1, tokens.len().clamp(1, most));
        let mut context = self.context()?;
        self.pieces(&mut context, tokens, level, 0, Tail::None, |_, _| Vec::new()).await?;
        let table = self.device().await?.first_entry(&context);
        let from = tokens.len() - rows;
        let batch =
            (from..tokens.len()).map(|p| BatchRow { token: Some(tokens[p]), position: p as u32, table }).collect();
        let widths = context.table.widths();
        Ok((context, batch, widths))
    }
}

/// A pass, measured twice.
#[derive(Debug, Clone)]
pub struct Profiled {
    /// Its dispatches, a timestamp after each.
    pub dispatches: Vec<Dispatch>,
    /// Nanoseconds of all of them with a timestamp at each end alone.
    pub whole_ns: f64,
}

/// A kernel in the place of a kind of product of a pass.
#[derive(Debug, Clone)]
pub struct Rival {
    /// The kernel that the pass has there.
    pub own: &'static Variant,
    /// Dispatches of the kind in a pass.
    pub count: usize,
    /// One for each round: the first dispatch of the kind, with the mean time of all.
    pub rounds: Vec<Dispatch>,
}

/// The choices for a model by the options: kept ones, measured ones, or none.
pub(crate) async fn tuned(backend: &mut Backend, model: &Model, options: &Options) -> Result<Table> {
    let Some(info) = backend.adapter().cloned().filter(|_| mode(options.tune) != Tune::Off) else {
        return Ok(Table::default());
    };
    if !Wanted::by_environment().is_free() {
        return Ok(Table::default());
    }
    let roles = matrix_roles(model, options.rows());
    let (host, key) = (options.tune_host.as_deref(), key(&info, options.exact, &roles));
    let (known, budget) = match (mode(options.tune), host) {
        (Tune::Off, _) | (Tune::Auto, None) => return Ok(Table::default()),
        (Tune::Auto, Some(host)) => {
            let kept = host.load(&key).and_then(|text| Table::from_text(&text, &key, &roles));
            (kept.unwrap_or_default(), Some(AUTO_BUDGET))
        }
        (Tune::Full, _) => (Table::default(), None),
    };
    if known.complete(&roles) {
        return Ok(known);
    }
    let mut progress = |done, total| {
        if let Some(host) = host {
            host.progress("kernels", done, total);
        }
    };
    let mut tuner = Tuner::new(options.exact, budget);
    if budget.is_some() && backend.is_software() {
        // Kernels with workgroup memory lose by a factor of ten and more on CPUs; measuring them would use up the time.
        tuner.variants.retain(|variant| !variant.source.contains("var<workgroup>"));
    }
    match tuner.run(backend, &roles, known.clone(), &mut progress).await {
        Ok(report) => {
            log::info!("measured the kernels of {} roles in {:.1} s", report.roles.len(), report.seconds);
            if let Some(host) = host {
                host.store(&key, &report.table.to_text(&key));
            }
            Ok(report.table)
        }
        Err(lost @ Error::DeviceLost(_)) => Err(lost),
        Err(e) => {
            log::warn!("the kernels could not be measured: {e}; they are picked by the kind of adapter");
            Ok(known)
        }
    }
}

/// `CONCERTINA_TUNE` (off, auto, full) over the options.
fn mode(options: Tune) -> Tune {
    #[cfg(not(target_arch = "wasm32"))]
    match crate::native::env("CONCERTINA_TUNE").as_deref() {
        Some("off") => return Tune::Off,
        Some("auto") => return Tune::Auto,
        Some("full") => return Tune::Full,
        Some(other) => log::warn!("CONCERTINA_TUNE={other} is none of off, auto, full"),
        None => {}
    }
    options
}
