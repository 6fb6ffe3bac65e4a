//! Rows of one figure, collected until the page ends.

use smallvec::SmallVec;
use xxhash_rust::xxh64::xxh64;

use super::row::{self, RawLabels};
use crate::datalayer::LabelRole;

/// Parts of one figure that are told apart; more are not looked at.
const MAX_ROWS: usize = 256;

/// Tells the rows of one series apart: two rows with one identity state the same figure of the same server part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Digest of the model; 0 without one.
    model: u64,
    /// Digest of the labels that number parts of the server; 0 without one.
    part: u64,
    /// Digest of the labels that split what another row states whole; 0 if the row is no share.
    share: u64,
    /// Digest of all other labels, which say nothing about which figure it is. Order of labels does not matter.
    rest: u64,
}

impl Identity {
    /// Of a row with these labels.
    pub(super) fn of(labels: &RawLabels<'_>, roles: &[(&[u8], LabelRole)]) -> Self {
        let mut identity = Self::default();
        for &(name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            let role = roles.iter().find(|(known, _)| *known == name).map(|&(_, role)| role);
            match role.unwrap_or(LabelRole::Repeat) {
                LabelRole::Part => add(&mut identity.part, name, value),
                LabelRole::Model => add(&mut identity.model, name, value),
                LabelRole::Split => add(&mut identity.share, name, value),
                LabelRole::Repeat => add(&mut identity.rest, name, value),
            }
        }
        identity
    }

    /// Of a row whose other labels are what it states.
    pub(super) fn of_part(labels: &RawLabels<'_>, roles: &[(&[u8], LabelRole)]) -> Self {
        let mut identity = Self::default();
        for (name, _) in roles.iter().filter(|(_, role)| *role == LabelRole::Part) {
            if let Some(value) = row::raw_label(labels, name).filter(|value| !value.is_empty()) {
                add(&mut identity.part, name, value);
            }
        }
        identity
    }

    /// True if both rows state the same figure, whatever their other labels are.
    fn is_repeat_of(self, other: Self) -> bool {
        Self { rest: 0, ..self } == Self { rest: 0, ..other }
    }
}

fn add(digest: &mut u64, name: &[u8], value: &[u8]) {
    *digest = digest.wrapping_add(xxh64(value, xxh64(name, 2)));
}

/// A figure that several workers may state.
pub(super) trait Stated: Copy {
    /// The value that counts if one worker states this value, and another worker the other.
    #[must_use]
    fn or_higher(self, other: Self) -> Self;
}

impl Stated for f64 {
    fn or_higher(self, other: Self) -> Self {
        self.max(other)
    }
}

#[derive(Clone, Copy, Debug)]
struct HeldRow<T> {
    identity: Identity,
    timestamp: f64,
    value: T,
}

/// Rows of one figure: the newest of each part of the server. Those of the leading model count.
#[derive(Clone, Debug)]
pub(super) struct FigureSlot<T> {
    rows: SmallVec<[HeldRow<T>; 2]>,
    /// Model of the first row that has the highest timestamp.
    leader: u64,
    latest: f64,
    /// Some row is a share.
    split: bool,
}

impl<T> Default for FigureSlot<T> {
    fn default() -> Self {
        Self { rows: SmallVec::new(), leader: 0, latest: 0.0, split: false }
    }
}

impl<T: Stated> FigureSlot<T> {
    /// Offers a row. A later timestamp beats what is held; on a tie a row with the very same labels is no news, and of
    /// workers that state the same figure the highest counts.
    pub(super) fn offer(&mut self, identity: Identity, timestamp: f64, value: T) {
        // Rows from before 1970, and NaN, never match.
        if timestamp.is_nan() || timestamp < 0.0 {
            return;
        }
        let row = HeldRow { identity, timestamp, value };
        match self.rows.iter().position(|held| held.identity.is_repeat_of(identity)) {
            Some(at) if timestamp > self.rows[at].timestamp => self.rows[at] = row,
            Some(at)
                if timestamp >= self.rows[at].timestamp && identity.rest != self.rows[at].identity.rest =>
            {
                self.rows[at].value = self.rows[at].value.or_higher(value);
                return;
            }
            None if self.rows.len() < MAX_ROWS => self.rows.push(row),
            // Clients may choose by how many values a figure is split: shares give way to a whole.
            None if identity.share == 0 && self.split => {
                let Some(share) = self.rows.iter_mut().rev().find(|held| held.identity.share != 0) else {
                    return;
                };
                *share = row;
            }
            Some(_) | None => return,
        }
        self.split |= identity.share != 0;
        if self.rows.len() == 1 || timestamp > self.latest {
            self.leader = identity.model;
            self.latest = timestamp;
        }
    }

    /// Number of rows that count.
    pub(super) fn len(&self) -> usize {
        self.values().count()
    }

    /// Values of the rows that count.
    pub(super) fn values(&self) -> impl Iterator<Item = T> {
        let counts = |held: &&HeldRow<T>| {
            held.identity.model == self.leader && !(self.split && self.has_whole(held.identity))
        };
        self.rows.iter().filter(counts).map(|held| held.value)
    }

    /// True if `identity` is a share of a figure that another row states whole.
    fn has_whole(&self, identity: Identity) -> bool {
        let whole = Identity { share: 0, ..identity };
        identity.share != 0 && self.rows.iter().any(|held| held.identity.is_repeat_of(whole))
    }

    /// Forgets all rows.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.split = false;
    }
}

impl FigureSlot<f64> {
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
