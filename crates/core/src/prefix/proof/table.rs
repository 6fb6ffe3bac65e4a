//! The machines of all models and all versions of their servers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::machine::{Change, Check, Machine, ProofState};

/// The most pairs of a model and a version. For a further pair, the one that was checked longest ago is forgotten.
const MAX_ROWS: usize = 1024;
/// The longest name of a model or a version, in bytes. Pairs with longer names are not checked.
const MAX_NAME: usize = 512;
/// The number of differences that are remembered for each pair.
const MAX_MISMATCHES: usize = 16;

/// The model and the version of its servers that a check belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The name of the model that the request asked for.
    pub model: &'a str,
    /// The version of the servers; empty if nothing tells versions apart.
    pub version: &'a str,
}

/// A check that differed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The kind of the check.
    pub check: Check,
    /// The address of the server, as `ip:port`.
    pub server: Box<str>,
    /// The computed number: tokens, or blocks for [`Check::Events`].
    pub predicted: u64,
    /// The number that the server reported.
    pub observed: u64,
    /// The time of the check.
    pub at: Instant,
}

/// The state and the checks of one model on one version of its servers, for pages.
#[derive(Clone, Debug)]
pub struct ProofRow {
    /// The name of the model.
    pub model: Box<str>,
    /// The version of its servers.
    pub version: Box<str>,
    /// The present state.
    pub state: ProofState,
    /// The time since which the state has been the present one.
    pub since: Instant,
    /// The number of checks that held and the number that differed, for each kind in the order of [`Check::ALL`].
    pub checks: [[u64; 2]; 3],
    /// The last differences, with the newest first.
    pub mismatches: Vec<Mismatch>,
}

#[derive(Debug)]
struct Row {
    machine: Machine,
    since: Instant,
    touched: Instant,
    checks: [[u64; 2]; 3],
    mismatches: VecDeque<Mismatch>,
}

/// The rows by model, then by version.
type Rows = HashMap<Box<str>, HashMap<Box<str>, Arc<Mutex<Row>>>>;

/// The rows of all models.
#[derive(Debug)]
pub struct ProofTable {
    pause: Duration,
    rows: RwLock<Rows>,
}

impl ProofTable {
    /// Makes an empty table. `pause` is the shortest time in the state off.
    pub fn new(pause: Duration) -> Self {
        Self { pause, rows: RwLock::default() }
    }

    /// True unless the tokens that are computed for these servers are known to differ from the servers' own.
    pub fn trusts(&self, subject: Subject<'_>) -> bool {
        self.state(subject) != ProofState::Off
    }

    /// The state of the tokens that are computed for these servers.
    pub fn state(&self, subject: Subject<'_>) -> ProofState {
        self.find(subject).map_or(ProofState::Unknown, |row| row.lock().machine.state())
    }

    /// Notes that a check of an answer of `server` held. Returns the change of the state, if there is one.
    pub fn held(&self, subject: Subject<'_>, check: Check, server: u64, now: Instant) -> Option<Change> {
        let row = self.row(subject, now)?;
        let mut row = row.lock();
        row.note(check, 0, now);
        let change = row.machine.held(check, server, now);
        row.changed(change, now)
    }

    /// Notes that a check of an answer of `server` differed. Returns the change of the state, if there is one.
    pub fn differed(&self, subject: Subject<'_>, server: u64, mismatch: Mismatch) -> Option<Change> {
        let now = mismatch.at;
        let row = self.row(subject, now)?;
        let mut row = row.lock();
        let check = mismatch.check;
        row.note(check, 1, now);
        row.mismatches.truncate(MAX_MISMATCHES - 1);
        row.mismatches.push_front(mismatch);
        let change = row.machine.differed(check, server, now);
        row.changed(change, now)
    }

    /// Forgets the faults of servers for which `is_there` is false.
    pub fn retain_servers(&self, is_there: impl Fn(u64) -> bool) {
        for row in self.rows.read().values().flat_map(HashMap::values) {
            row.lock().machine.retain(&is_there);
        }
    }

    /// Forgets the versions for which `is_there` is false, and returns their rows.
    pub fn forget_versions(&self, is_there: impl Fn(&str) -> bool) -> Vec<ProofRow> {
        let mut gone = Vec::new();
        self.rows.write().retain(|model, versions| {
            versions.retain(|version, row| {
                let keep = is_there(version);
                if !keep {
                    gone.push(row.lock().shown(model, version));
                }
                keep
            });
            !versions.is_empty()
        });
        gone
    }

    /// All rows, sorted by model and version.
    pub fn rows(&self) -> Vec<ProofRow> {
        let rows = self.rows.read();
        let all = rows.iter().flat_map(|(model, versions)| {
            versions.iter().map(move |(version, row)| row.lock().shown(model, version))
        });
        let mut all: Vec<ProofRow> = all.collect();
        drop(rows);
        all.sort_by(|a, b| (&a.model, &a.version).cmp(&(&b.model, &b.version)));
        all
    }

    fn find(&self, subject: Subject<'_>) -> Option<Arc<Mutex<Row>>> {
        self.rows.read().get(subject.model)?.get(subject.version).map(Arc::clone)
    }

    fn row(&self, subject: Subject<'_>, now: Instant) -> Option<Arc<Mutex<Row>>> {
        if subject.model.len() > MAX_NAME || subject.version.len() > MAX_NAME {
            return None;
        }
        if let Some(row) = self.find(subject) {
            return Some(row);
        }
        let mut rows = self.rows.write();
        if rows.values().map(HashMap::len).sum::<usize>() >= MAX_ROWS {
            forget_oldest(&mut rows);
        }
        let versions = rows.entry(subject.model.into()).or_default();
        let row = versions.entry(subject.version.into()).or_insert_with(|| {
            Arc::new(Mutex::new(Row {
                machine: Machine::new(self.pause),
                since: now,
                touched: now,
                checks: [[0; 2]; 3],
                mismatches: VecDeque::new(),
            }))
        });
        Some(Arc::clone(row))
    }
}

fn forget_oldest(rows: &mut Rows) {
    let all = rows.iter().flat_map(|(model, versions)| {
        versions.iter().map(move |(version, row)| (row.lock().touched, model.clone(), version.clone()))
    });
    let Some((_, model, version)) = all.min_by_key(|(touched, ..)| *touched) else { return };
    if let Some(versions) = rows.get_mut(&model) {
        versions.remove(&version);
        if versions.is_empty() {
            rows.remove(&model);
        }
    }
}

impl Row {
    fn note(&mut self, check: Check, outcome: usize, now: Instant) {
        self.touched = now;
        if let Some(count) = self.checks.get_mut(check as usize).and_then(|row| row.get_mut(outcome)) {
            *count += 1;
        }
    }

    fn changed(&mut self, change: Option<Change>, now: Instant) -> Option<Change> {
        if change.is_some() {
            self.since = now;
        }
        change
    }

    fn shown(&self, model: &str, version: &str) -> ProofRow {
        ProofRow {
            model: model.into(),
            version: version.into(),
            state: self.machine.state(),
            since: self.since,
            checks: self.checks,
            mismatches: self.mismatches.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mismatch(at: Instant) -> Mismatch {
        Mismatch { check: Check::Count, server: "10.0.0.1:8000".into(), predicted: 10, observed: 12, at }
    }

    #[test]
    fn each_model_and_each_version_has_a_state_of_its_own() {
        let table = ProofTable::new(Duration::from_secs(30));
        let now = Instant::now();
        let [bad, newer, other] =
            [("m", "1"), ("m", "2"), ("n", "1")].map(|(model, version)| Subject { model, version });
        for _ in 0..4 {
            table.differed(bad, 7, mismatch(now));
            table.held(newer, Check::Count, 8, now);
        }
        assert!(!table.trusts(bad) && table.trusts(newer) && table.trusts(other));
        let rows = table.rows();
        assert_eq!(table.forget_versions(|version| !version.is_empty()).len(), 0);
        assert_eq!(rows.len(), 2);
        assert_eq!(
            (rows[0].state, rows[0].checks[0], rows[0].mismatches.len()),
            (ProofState::Off, [0, 4], 4)
        );
        assert_eq!((rows[1].state, rows[1].checks[0]), (ProofState::Unknown, [4, 0]));
    }

    #[test]
    fn clients_that_make_names_up_do_not_fill_the_memory() {
        let table = ProofTable::new(Duration::from_secs(30));
        let now = Instant::now();
        for name in 0..MAX_ROWS + 10 {
            let model = name.to_string();
            let at = now + Duration::from_secs(name as u64);
            table.held(Subject { model: &model, version: "" }, Check::Count, 1, at);
        }
        assert_eq!(table.rows().len(), MAX_ROWS);
        assert_eq!(table.rows().iter().filter(|row| &*row.model == "0").count(), 0, "the oldest is gone");
        let long = "m".repeat(MAX_NAME + 1);
        assert_eq!(table.held(Subject { model: &long, version: "" }, Check::Count, 1, now), None);
        assert_eq!(table.rows().len(), MAX_ROWS);
    }
}
