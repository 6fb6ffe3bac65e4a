//! Series of flow control: what waits, how long it waited and how that ended, and how full the pool is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Histogram;

use super::family::Twin;
use super::flow_families::{FlowFamilies, OUTCOMES};
use super::flow_sets::{FlowSets, QueuedGuard};
use super::labels::RequestLabels;

/// Handles of the queues of one pool. Clones share the series.
#[derive(Clone)]
pub struct FlowMetrics {
    inner: Arc<Inner>,
}

struct Inner {
    families: Arc<FlowFamilies>,
    pool: Box<str>,
    sets: Arc<FlowSets>,
    cycle: Twin<Histogram>,
}

impl FlowMetrics {
    pub(super) fn new(families: Arc<FlowFamilies>, pool: &str, bands: impl IntoIterator<Item = i32>) -> Self {
        let sets = Arc::new(FlowSets::new(Arc::clone(&families), pool));
        let cycle = families.cycle.child([]);
        for outcome in ["confirmed", "timed_out"] {
            families.revoked.child([outcome, pool]);
        }
        let metrics = Self { inner: Arc::new(Inner { families, pool: pool.into(), sets, cycle }) };
        bands.into_iter().for_each(|priority| metrics.add_band(priority));
        metrics
    }

    /// A band with this priority exists now: its gauges and counters show 0 until something waits, under the default
    /// flow and without models, so that no sum over the pool is ever empty. Does nothing for a band that was added
    /// before.
    pub fn add_band(&self, priority: i32) {
        if self.inner.sets.pin(priority) {
            self.band_use(priority, 0.0, 0.0);
            let Inner { families, pool, .. } = &*self.inner;
            let priority = priority.to_string();
            families.issued.child([&priority, pool]);
            for outcome in OUTCOMES {
                families.requests.child([outcome, &priority, pool]);
            }
        }
    }

    /// The band is gone. Its gauges go too, once nothing of it waits.
    pub fn remove_band(&self, priority: i32) {
        self.inner.sets.unpin(priority);
        for family in &self.inner.families.band {
            family.remove([&priority.to_string(), &self.inner.pool]);
        }
    }

    /// A request with a body of `bytes` enters. It counts until the guard is finished or dropped; `labels.priority` is
    /// the one it asked for.
    pub fn enqueued(&self, labels: RequestLabels<'_>, bytes: u64, now: Instant) -> QueuedGuard {
        self.inner.sets.enter(labels, bytes, now)
    }

    /// Drops series of flows in which nothing has waited for `idle`. Those of bands stay. Call it now and then.
    pub fn prune(&self, now: Instant, idle: Duration) {
        self.inner.sets.prune(now, idle);
    }

    /// One look at the queues took this long.
    pub fn dispatch_cycle(&self, took: Duration) {
        self.inner.cycle.observe(took.as_secs_f64());
    }

    /// Sets how full the pool is: by stage, where `None` is a stage without endpoints, and as a whole.
    pub fn saturation(&self, prefill: Option<f64>, decode: Option<f64>, effective: f64) {
        let stages = [("prefill", prefill), ("decode", decode), ("effective", Some(effective))];
        for (stage, value) in stages {
            let labels = [&*self.inner.pool, stage];
            match value {
                Some(value) => self.inner.families.saturation.child(labels).set(value),
                None => self.inner.families.saturation.remove(labels),
            }
        }
    }

    /// Sets the number of endpoints whose reading is too old for `detector`.
    pub fn stale_endpoints(&self, detector: &str, endpoints: u64) {
        self.inner.families.stale(detector, endpoints);
    }

    /// Sets how much of its limits the band of `priority` uses, as shares.
    pub fn band_use(&self, priority: i32, requests: f64, bytes: f64) {
        let priority = priority.to_string();
        for (family, share) in self.inner.families.band.iter().zip([requests, bytes]) {
            family.child([&priority, &self.inner.pool]).set(share);
        }
    }

    /// Sets how much of the limits for all bands is used, as shares; `None` for a limit that there is not.
    pub fn global_use(&self, requests: Option<f64>, bytes: Option<f64>) {
        for (family, share) in self.inner.families.global.iter().zip([requests, bytes]) {
            if let Some(share) = share {
                family.child([&self.inner.pool]).set(share);
            }
        }
    }

    /// A running request was told to stop, for one of the band of `priority`.
    pub fn revocation_issued(&self, priority: i32) {
        self.inner.families.issued.child([&priority.to_string(), &self.inner.pool]).inc();
    }

    /// A request that was told to stop ended after this time, or did not (`confirmed` is false) and is waited for no
    /// more.
    pub fn revocation_ended(&self, confirmed: bool, took: Duration) {
        let outcome = if confirmed { "confirmed" } else { "timed_out" };
        self.inner.families.revoked.child([outcome, &self.inner.pool]).inc();
        if confirmed {
            self.inner.families.confirmation.child([&self.inner.pool]).observe(took.as_secs_f64());
        }
    }

    /// Sets the saturation that is to be won back by stopping requests, and what those stopped already will give.
    pub fn reclaim(&self, target: f64, pending: f64) {
        self.inner.families.target.child([&self.inner.pool]).set(target);
        self.inner.families.pending.child([&self.inner.pool]).set(pending);
    }

    /// Sets how evenly programs wait, in (0, 1].
    pub fn programs_fairness(&self, jain: f64) {
        self.inner.families.jain.child([]).set(jain);
    }

    /// Sets the mean wait of a program, and the service it got. Programs beyond the bound of fairness ids share one
    /// series.
    pub fn program(&self, program: &str, average_wait: Duration, service: f64) {
        let families = &self.inner.families;
        let program = families.fairness.admit(program);
        families.program_wait.child([program]).set(average_wait.as_secs_f64() * 1000.0);
        families.program_service.child([program]).set(service);
    }

    /// Drops the series of a program. One that shares the series of all others leaves it to them.
    pub fn forget_program(&self, program: &str) {
        if !self.inner.families.fairness.knows(program) {
            return;
        }
        self.inner.families.program_wait.remove([program]);
        self.inner.families.program_service.remove([program]);
    }
}

impl std::fmt::Debug for FlowMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowMetrics").field("pool", &self.inner.pool).finish_non_exhaustive()
    }
}
