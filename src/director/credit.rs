//! The share of CPU that work beside requests may take.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

/// Work that may be done ahead of what earns it, and debts that are remembered, in nanoseconds.
const MOST: i64 = 5_000_000;
const DEEPEST: i64 = -1_000_000_000;

/// An account: work on requests earns a share of its time, and work beside them spends it.
#[derive(Debug)]
pub(super) struct Credit {
    share: f64,
    nanos: AtomicI64,
}

impl Credit {
    /// Something to begin with. `share` is seconds beside requests for each second on them, at least 0.
    pub(super) fn new(share: f64) -> Self {
        Self { share, nanos: AtomicI64::new(MOST) }
    }

    /// There is something to spend.
    pub(super) fn is_open(&self) -> bool {
        self.nanos.load(Relaxed) > 0
    }

    /// This much was done for requests.
    pub(super) fn earn(&self, time: Duration) {
        self.add((time.as_nanos() as f64 * self.share) as i64);
    }

    /// This much was done beside them.
    pub(super) fn spend(&self, time: Duration) {
        self.add(-i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
    }

    fn add(&self, nanos: i64) {
        let before = self.nanos.fetch_add(nanos, Relaxed);
        let now = before.saturating_add(nanos);
        if !(DEEPEST..=MOST).contains(&now) {
            // Another thread may add meanwhile: what gets lost is as small as what it adds.
            self.nanos.store(now.clamp(DEEPEST, MOST), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn work_beside_requests_takes_its_share_and_no_more(
            share in 0.0..2.0_f64,
            requests in prop::collection::vec((1_000_u64..200_000, 1_000_u64..200_000), 1..400),
        ) {
            let credit = Credit::new(share);
            let (mut on, mut beside, mut longest) = (0, 0, 0);
            for (request, work) in requests {
                if credit.is_open() {
                    credit.spend(Duration::from_nanos(work));
                    beside += work;
                }
                credit.earn(Duration::from_nanos(request));
                (on, longest) = (on + request, longest.max(work));
            }
            let allowed = on as f64 * share + MOST as f64 + longest as f64;
            prop_assert!(beside as f64 <= allowed, "{beside} of {allowed}");
        }
    }

    #[test]
    fn a_debt_is_paid_before_anything_else_is_done_and_is_not_endless() {
        let credit = Credit::new(0.5);
        credit.spend(Duration::from_millis(15));
        assert!(!credit.is_open());
        credit.earn(Duration::from_millis(19));
        assert!(!credit.is_open());
        credit.earn(Duration::from_millis(2));
        assert!(credit.is_open());
        credit.spend(Duration::from_hours(1));
        credit.earn(Duration::from_secs(3));
        assert!(credit.is_open(), "an hour of debt is forgotten");
    }
}
