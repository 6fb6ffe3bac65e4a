//! How far this replica has come in the log of a peer. Pure.

use std::time::{Duration, Instant};

use super::log::{CHANGE, PART};
use crate::peers::fleet::LinkId;
use crate::peers::wire::Update;

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// It tells nothing new.
    Pass,
    /// What is known of the peer counts no more, and a snapshot begins with this message.
    Begin(Update),
    /// It goes on.
    GoOn(Update),
    /// The peer ends.
    Leave,
    /// An entry is missing, and with it what it said.
    Lost,
}

/// Where in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Before a snapshot.
    Before,
    /// In one.
    Inside,
    /// Behind it: all is known.
    Behind,
}

/// A peer whose log is read.
#[derive(Debug)]
pub(super) struct Followed {
    /// The link by which its share is kept, once it has one.
    pub(super) link: Option<LinkId>,
    /// Number of the last entry that was read; 0 for none.
    pub(super) position: u64,
    stage: Stage,
    /// Messages that were handed on by this link.
    sequence: u64,
    /// When it last wrote, by what is left of the time after which the server forgets it: entries do not say when they
    /// were written.
    pub(super) heard: Instant,
    /// It is not read before.
    pub(super) not_before: Instant,
}

impl Followed {
    /// A peer that spoke last at `heard`.
    pub(super) fn new(heard: Instant) -> Self {
        Self { link: None, position: 0, stage: Stage::Before, sequence: 0, heard, not_before: heard }
    }

    /// Reads the log from its beginning again, from `at` on.
    pub(super) fn begin_anew(&mut self, at: Instant) -> Option<LinkId> {
        let link = self.link.take();
        *self = Self { not_before: at, ..Self::new(self.heard) };
        link
    }

    /// Time of silence.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    /// Takes the entry at `position`.
    pub(super) fn take(&mut self, position: u64, field: &[u8], mut update: Update) -> Step {
        if position <= self.position {
            return Step::Pass;
        }
        let follows = self.position > 0 && position == self.position + 1;
        let is_part = field == PART.as_bytes();
        if !is_part && field != CHANGE.as_bytes() {
            return Step::Lost;
        }
        self.position = position;
        if update.leaves {
            return Step::Leave;
        }
        let begins = is_part && update.snapshot;
        match self.stage {
            // Known already.
            Stage::Behind if is_part && follows => return Step::Pass,
            Stage::Behind if follows => {}
            Stage::Inside if is_part && !begins && follows => {}
            // The snapshot will tell.
            Stage::Inside if !is_part && follows => return Step::Pass,
            _ if begins => {
                self.stage = Stage::Inside;
                self.sequence = 0;
            }
            _ => return Step::Lost,
        }
        if is_part && !update.more {
            self.stage = Stage::Behind;
        }
        self.sequence += 1;
        update.sequence = self.sequence;
        if self.sequence == 1 { Step::Begin(update) } else { Step::GoOn(update) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(snapshot: bool, more: bool) -> Update {
        Update { version: 1, epoch: 5, snapshot, more, ..Update::default() }
    }

    fn words(entries: &[(u64, &str, Update)]) -> String {
        let mut followed = Followed::new(Instant::now());
        let steps = entries.iter().map(|(position, field, update)| {
            match followed.take(*position, field.as_bytes(), update.clone()) {
                Step::Pass => "pass".to_owned(),
                Step::Begin(update) => format!("begin {}", update.sequence),
                Step::GoOn(update) => format!("on {}", update.sequence),
                Step::Leave => "leave".to_owned(),
                Step::Lost => "lost".to_owned(),
            }
        });
        steps.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_log_is_read_from_its_snapshot_on() {
        let change = part(false, false);
        let log = [
            (7, "s", part(true, true)),
            (8, "c", change.clone()),
            (9, "s", part(false, false)),
            (10, "c", change.clone()),
            (10, "c", change.clone()),
            // The next snapshot says nothing new.
            (11, "s", part(true, true)),
            (12, "c", change.clone()),
            (13, "s", part(false, false)),
            (14, "c", Update { leaves: true, ..change }),
        ];
        assert_eq!(words(&log), "begin 1, pass, on 2, on 3, pass, pass, on 4, pass, leave");
    }

    #[test]
    fn whoever_misses_an_entry_needs_a_snapshot() {
        let change = part(false, false);
        let whole = part(true, false);
        assert_eq!(words(&[(3, "c", change.clone())]), "lost");
        assert_eq!(words(&[(3, "s", change.clone())]), "lost");
        assert_eq!(words(&[(3, "x", whole.clone())]), "lost");
        assert_eq!(words(&[(3, "s", whole.clone()), (5, "c", change)]), "begin 1, lost");
        assert_eq!(words(&[(3, "s", whole.clone()), (5, "s", whole.clone())]), "begin 1, begin 1");
        assert_eq!(words(&[(3, "s", part(true, true)), (5, "s", whole)]), "begin 1, begin 1");
    }
}
