//! Which variant of a matrix kernel is the fastest here: measured on the adapter, checked against the CPU twin, kept.
//!
//! A model has a few shapes of matrices, and each runs in up to three families of batches ([`Family`]). For each of these
//! roles every variant that the table calls a matrix kernel is a candidate. One that deviates from its twin, or that the
//! device refuses, is never picked, however fast it is. What is found is kept by the host ([`TuneHost`]) for the adapter,
//! its driver and the very shaders, and anything in the keeping that does not fit is measured again.

mod cutover;
mod measure;
mod parity;
mod random;
mod roles;
mod table;
mod tuner;
mod wanted;

pub use crate::weights::Cut;
pub use roles::{Family, MatrixRole, Shape, matrix_roles};
pub use table::{Choice, Table};
pub use tuner::{Candidate, RoleReport, TuneReport, Tuner};
pub use wanted::Wanted;

pub(crate) use parity::Parity;

/// When kernels are measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tune {
    /// On first use, for a few seconds at most, where [`crate::Options::tune_host`] keeps what is found; without a host
    /// the choice follows from the kind of adapter.
    #[default]
    Auto,
    /// Never: the choice follows from the kind of adapter.
    Off,
    /// At every start, without a limit on time.
    Full,
}

/// What the tuner needs of its surroundings: a place to keep text, and somebody to tell.
pub trait TuneHost: std::fmt::Debug + Send + Sync {
    /// What was stored under `key`; `None` where there is nothing that can be read.
    fn load(&self, key: &str) -> Option<String>;

    /// Keep `text` under `key`. A failure is not worth an error: the next start measures again.
    fn store(&self, key: &str, text: &str);

    /// Told after each of `total` steps of measuring `what` ("kernels", "latency"), and at the end with `done == total`.
    fn progress(&self, what: &str, done: usize, total: usize) {
        let _ = (what, done, total);
    }
}

/// What must be the same for measurements to hold: adapter, driver, backend, shaders, exactness, and the roles.
pub(crate) fn key(info: &crate::AdapterInfo, exact: bool, roles: &[MatrixRole]) -> String {
    let mut text = format!(
        "v2|{}|{}|{}|{:016x}|exact {exact}",
        info.name,
        info.driver,
        info.backend,
        concertina_shaders::SOURCES_HASH
    );
    for role in roles {
        text += &format!("|{role}");
    }
    text
}
