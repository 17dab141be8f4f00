//! A hard budget of bytes: reserved before anything is allocated.

/// The bytes asked for do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{asked} bytes do not fit beside {used} of {limit}")]
pub struct OverBudget {
    /// Bytes asked for.
    pub asked: u64,
    /// Bytes reserved.
    pub used: u64,
    /// The budget.
    pub limit: u64,
}

/// Bytes reserved out of a limit that may change.
#[derive(Debug, Clone)]
pub struct Budget {
    limit: u64,
    used: u64,
    peak: u64,
}

impl Budget {
    /// Nothing reserved out of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, used: 0, peak: 0 }
    }

    /// Reserve bytes before they are allocated.
    ///
    /// # Errors
    /// [`OverBudget`], and then nothing has changed.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), OverBudget> {
        let over = OverBudget { asked: bytes, used: self.used, limit: self.limit };
        let used = self.used.checked_add(bytes).filter(|used| *used <= self.limit).ok_or(over)?;
        self.used = used;
        self.peak = self.peak.max(used);
        Ok(())
    }

    /// Give bytes back that were reserved.
    ///
    /// # Panics
    /// If more is given back than is reserved: the books would be wrong from here on.
    pub fn release(&mut self, bytes: u64) {
        assert!(bytes <= self.used, "{bytes} bytes given back, {} reserved", self.used);
        self.used -= bytes;
    }

    /// Change the limit. Returns how many bytes must be released before anything can be reserved again.
    pub fn set_limit(&mut self, limit: u64) -> u64 {
        self.limit = limit;
        self.used.saturating_sub(limit)
    }

    /// Bytes that must be released before `bytes` can be reserved.
    pub fn lacks(&self, bytes: u64) -> u64 {
        self.used.saturating_add(bytes).saturating_sub(self.limit)
    }

    /// The budget.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes reserved.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// The most that was ever reserved at once.
    pub fn peak(&self) -> u64 {
        self.peak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_never_exceeded() {
        let mut budget = Budget::new(10);
        budget.reserve(6).unwrap();
        assert_eq!(budget.reserve(5), Err(OverBudget { asked: 5, used: 6, limit: 10 }));
        assert_eq!((budget.lacks(5), budget.used()), (1, 6));
        assert!(budget.reserve(u64::MAX).is_err());
        assert_eq!(budget.set_limit(4), 2);
        assert!(budget.reserve(1).is_err());
        budget.release(6);
        budget.reserve(4).unwrap();
        assert_eq!(budget.peak(), 6);
    }
}
