//! The ids of Mooncake's engines for each prefill server. A restarted server has new ids. The sidecar therefore trusts
//! ids for half a minute, and forgets those of a server as soon as a decode call that used them fails.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::target::Target;
use crate::request::{JsonObject, json_members};

/// The time for which ids are trusted after they were read.
const TRUSTED: Duration = Duration::from_secs(30);

/// The most servers whose engines are remembered.
const MOST: usize = 1024;

/// The most ranks of one server that are remembered.
const MOST_RANKS: usize = 1024;

/// An engine of a prefill server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Engine {
    /// The data-parallel rank of the engine.
    pub rank: u32,
    /// The id that the engine gave itself.
    pub id: String,
}

/// The engines of the prefill servers that were asked lately.
#[derive(Debug, Default)]
pub(super) struct EngineIds {
    known: Mutex<HashMap<Target, (Instant, Vec<Engine>)>>,
}

impl EngineIds {
    /// The engines of a prefill server; `None` if they are unknown or were read too long ago.
    pub(super) fn of(&self, target: &Target, now: Instant) -> Option<Vec<Engine>> {
        let known = self.known.lock();
        let (heard, engines) = known.get(target)?;
        (now.saturating_duration_since(*heard) < TRUSTED).then(|| engines.clone())
    }

    /// Remembers the engines of a prefill server. When `MOST` servers are known, those that are no longer trusted make
    /// room; if there are none, all are forgotten.
    pub(super) fn learn(&self, target: &Target, engines: Vec<Engine>, now: Instant) {
        let mut known = self.known.lock();
        if known.len() >= MOST && !known.contains_key(target) {
            known.retain(|_, (heard, _)| now.saturating_duration_since(*heard) < TRUSTED);
            if known.len() >= MOST {
                known.clear();
            }
        }
        known.insert(target.clone(), (now, engines));
    }

    /// Forgets the engines of a prefill server.
    pub(super) fn forget(&self, target: &Target) {
        self.known.lock().remove(target);
    }
}

/// Reads the answer of a bootstrap server: an object whose names are ranks and whose values have an `engine_id`.
/// Members of another form are skipped.
pub(super) fn read_engines(answer: &Bytes) -> Vec<Engine> {
    let ranks = json_members(answer).unwrap_or_default();
    ranks
        .into_iter()
        .take(MOST_RANKS)
        .filter_map(|(rank, value)| {
            let id = JsonObject::read(value, &["engine_id"]).ok()?.text("engine_id")?;
            Some(Engine { rank: rank.parse().ok()?, id })
        })
        .filter(|engine| !engine.id.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_by_rank_and_others_passed_over() {
        let answer = Bytes::from_static(
            br#"{"0":{"engine_id":"A"},"1":{"engine_id":7},"x":{"engine_id":"B"},"2":[]}"#,
        );
        assert_eq!(read_engines(&answer), [Engine { rank: 0, id: "A".into() }]);
        for answer in ["{}", "[]", "no json", ""] {
            assert!(read_engines(&Bytes::from_static(answer.as_bytes())).is_empty(), "{answer}");
        }
    }

    #[test]
    fn ids_are_trusted_for_half_a_minute_and_their_number_is_bounded() {
        let (ids, start) = (EngineIds::default(), Instant::now());
        let target = |number: usize| Target::parse(&format!("h{number}:1")).unwrap();
        let engines = vec![Engine { rank: 0, id: "A".into() }];
        ids.learn(&target(0), engines.clone(), start);
        assert_eq!(ids.of(&target(0), start + Duration::from_secs(29)), Some(engines.clone()));
        assert_eq!(ids.of(&target(0), start + Duration::from_secs(30)), None);
        for number in 0..3 * MOST {
            ids.learn(&target(number), engines.clone(), start);
            assert!(ids.known.lock().len() <= MOST);
        }
        ids.forget(&target(3 * MOST - 1));
        assert_eq!(ids.of(&target(3 * MOST - 1), start), None);
    }
}
