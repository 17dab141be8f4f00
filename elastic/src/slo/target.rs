//! What a call asks for.

use serde::{Deserialize, Serialize};

/// Greatest times that a call allows. `None`: any.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Target {
    /// To the first token, from the call.
    pub ttft_ms: Option<f64>,
    /// For each token after it.
    pub tpot_ms: Option<f64>,
}

impl Target {
    /// Whether anything is asked for.
    pub fn is_any(&self) -> bool {
        self.ttft_ms.is_none() && self.tpot_ms.is_none()
    }

    /// Stricter by a share of each.
    pub fn shrunk(&self, shares: (f64, f64)) -> Self {
        let less = |most: f64, share: f64| most * (1.0 - share);
        Self {
            ttft_ms: self.ttft_ms.map(|most| less(most, shares.0)),
            tpot_ms: self.tpot_ms.map(|most| less(most, shares.1)),
        }
    }

    /// Whether these times are within the target.
    pub fn allows(&self, ttft_ms: f64, tpot_ms: f64) -> bool {
        self.ttft_ms.is_none_or(|most| ttft_ms <= most) && self.tpot_ms.is_none_or(|most| tpot_ms <= most)
    }
}

/// A target as percent of what the whole model takes for the whole prompt: the six of ElastiLM's evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// 100 and 100 percent: no target, for the whole model meets it by definition.
    Full,
    /// 80 and 90 percent.
    Relaxed,
    /// 60 and 80 percent.
    Normal,
    /// 40 and 70 percent.
    Quick,
    /// 20 and 60 percent.
    Urgent,
    /// 20 and 50 percent.
    Instant,
}

impl Class {
    /// All of them, the slowest first.
    pub const ALL: [Self; 6] = [Self::Full, Self::Relaxed, Self::Normal, Self::Quick, Self::Urgent, Self::Instant];

    /// Percent of TTFT and of TPOT.
    pub fn percents(self) -> (u32, u32) {
        match self {
            Self::Full => (100, 100),
            Self::Relaxed => (80, 90),
            Self::Normal => (60, 80),
            Self::Quick => (40, 70),
            Self::Urgent => (20, 60),
            Self::Instant => (20, 50),
        }
    }

    /// Its name, as flags have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Relaxed => "relaxed",
            Self::Normal => "normal",
            Self::Quick => "quick",
            Self::Urgent => "urgent",
            Self::Instant => "instant",
        }
    }

    /// The class of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// Its target where the whole model takes these times.
    pub fn target(self, full_ttft_ms: f64, full_tpot_ms: f64) -> Target {
        if self == Self::Full {
            return Target::default();
        }
        let (ttft, tpot) = self.percents();
        let of = |percent: u32, full: f64| Some(f64::from(percent) / 100.0 * full);
        Target { ttft_ms: of(ttft, full_ttft_ms), tpot_ms: of(tpot, full_tpot_ms) }
    }
}
