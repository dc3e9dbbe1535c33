//! What somebody's calls owe to the refreshes that wait, where a cap has them share. Pure. Imports: nothing of ours.

/// Refreshes that go first now.
#[derive(Debug, Default)]
pub(super) struct Debt {
    refreshes: u64,
    /// What is charged already.
    charged: u64,
}

impl Debt {
    /// So many calls were made or paid for on somebody's behalf so far, in all.
    pub(super) fn charge(&mut self, calls: u64) {
        let new = calls.saturating_sub(std::mem::replace(&mut self.charged, calls));
        self.refreshes = self.refreshes.saturating_add(new.saturating_mul(REFRESHES_FOR_A_CALL));
    }

    pub(super) const fn is_due(&self) -> bool {
        self.refreshes > 0
    }

    /// One has started.
    pub(super) const fn pay(&mut self) {
        self.refreshes = self.refreshes.saturating_sub(1);
    }

    /// None waits any more that could start.
    pub(super) const fn forgive(&mut self) {
        self.refreshes = 0;
    }
}

/// The accounts that a cap serves need up to nineteen in twenty of the calls that can be kept up for their refreshes.
const REFRESHES_FOR_A_CALL: u64 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c8_a_call_is_charged_once_and_paid_by_nineteen_refreshes_or_by_none_that_waits() {
        let mut debt = Debt::default();
        assert!(!debt.is_due());
        debt.charge(2);
        debt.charge(2);
        let paid = std::iter::from_fn(|| debt.is_due().then(|| debt.pay())).count();
        assert_eq!(paid, 38);
        debt.charge(3);
        assert!(debt.is_due());
        debt.forgive();
        debt.charge(3);
        assert!(!debt.is_due());
    }
}
