//! Counters of budgets beside the ledger that they are a copy of.

/// Micro-units of all days and months that are counted, of tenants and of keys: of a quiet platform both sums are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetsCompared {
    /// By the counters, without what running requests have reserved and gateways have borrowed ahead.
    pub counted: u64,
    /// By the ledger: charged, and held for requests without an end.
    pub spent: u64,
    /// Counters that the ledger does not agree with.
    pub differing: u64,
}

impl BudgetsCompared {
    /// One counter more.
    pub(super) fn add(&mut self, counted: u64, spent: u64) {
        self.counted += counted;
        self.spent += spent;
        self.differing += u64::from(counted != spent);
    }
}
