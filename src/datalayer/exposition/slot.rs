//! Rows of one figure, collected until the page ends.

use smallvec::SmallVec;
use xxhash_rust::xxh64::xxh64;

use super::row::{self, RawLabels};

/// Rows of one figure that are told apart; more are not looked at.
const MAX_ROWS: usize = 256;

/// Which server a row speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Digest of all labels but the replica label. Order of labels does not matter.
    pub(super) others: u64,
    /// Digest of the replica label's value; 0 without one.
    pub(super) replica: u64,
}

impl Identity {
    /// Of a row with these labels.
    pub(super) fn of(labels: &RawLabels<'_>, replica_label: Option<&[u8]>) -> Self {
        let mut identity = Self::of_replica(labels, replica_label);
        for &(name, value) in labels {
            if Some(name) != replica_label {
                identity.others = identity.others.wrapping_add(xxh64(value, xxh64(name, 2)));
            }
        }
        identity
    }

    /// Of a row whose other labels say nothing about which server it speaks of.
    pub(super) fn of_replica(labels: &RawLabels<'_>, replica_label: Option<&[u8]>) -> Self {
        let replica = replica_label.and_then(|name| row::raw_label(labels, name));
        Self { others: 0, replica: replica.map_or(0, |value| xxh64(value, 1)) }
    }
}

#[derive(Clone, Copy, Debug)]
struct Held<T> {
    identity: Identity,
    timestamp: f64,
    value: T,
}

/// Rows of one figure: the newest of each server and replica. Those of the leading server count.
#[derive(Clone, Debug)]
pub(super) struct Slot<T> {
    rows: SmallVec<[Held<T>; 2]>,
    /// Server of the first row that has the highest timestamp.
    leader: u64,
    latest: f64,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { rows: SmallVec::new(), leader: 0, latest: 0.0 }
    }
}

impl<T: Copy> Slot<T> {
    /// Offers a row. A later timestamp beats what is held, on a tie the earlier row stays.
    pub(super) fn offer(&mut self, identity: Identity, timestamp: f64, value: T) {
        // Rows from before 1970, and NaN, never match.
        if timestamp.is_nan() || timestamp < 0.0 {
            return;
        }
        let row = Held { identity, timestamp, value };
        match self.rows.iter().position(|held| held.identity == identity) {
            Some(at) if timestamp > self.rows[at].timestamp => self.rows[at] = row,
            None if self.rows.len() < MAX_ROWS => self.rows.push(row),
            Some(_) | None => return,
        }
        if self.rows.len() == 1 || timestamp > self.latest {
            self.leader = identity.others;
            self.latest = timestamp;
        }
    }

    /// Number of rows that count.
    pub(super) fn len(&self) -> usize {
        self.values().count()
    }

    /// Values of the rows that count.
    pub(super) fn values(&self) -> impl Iterator<Item = T> {
        let counts = |held: &&Held<T>| held.identity.others == self.leader;
        self.rows.iter().filter(counts).map(|held| held.value)
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }
}

impl Slot<f64> {
    /// Sum of counts, none below zero.
    pub(super) fn total(&self) -> Option<u64> {
        (self.len() > 0).then(|| self.values().map(|value| value.max(0.0)).sum::<f64>() as u64)
    }

    /// Mean of fractions, each clamped to 0..=1.
    pub(super) fn mean_fraction(&self) -> Option<f64> {
        let sum: f64 = self.values().map(|value| value.clamp(0.0, 1.0)).sum();
        (self.len() > 0).then(|| sum / self.len() as f64)
    }
}
