//! Remembers decisions about callers of the metrics port for as long as they may be believed. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Time for which an answer is taken for granted.
const ALLOWED: Duration = Duration::from_mins(1);
/// The same for a refusal: who is given the right should not wait long.
const DENIED: Duration = Duration::from_secs(10);
/// While the API server gives no answer, whoever was allowed this long ago still is: an outage of it is when metrics
/// are needed, and it is also when nobody hears that a token was revoked.
const GRACE: Duration = Duration::from_mins(3);
/// Decisions kept. Beyond it the oldest is forgotten, refusals first: invented tokens must not push out a scraper's.
const KEPT: usize = 256;
/// After a question without an answer, trusted callers are not kept waiting for another for this long.
const SILENCE: Duration = Duration::from_secs(10);

/// A caller and the path that the caller asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Bearer token. Kept whole: a digest could collide.
    pub(super) token: Box<str>,
    /// Path of the request.
    pub(super) path: Box<str>,
    /// Verb in the words of the API: the method in lower case.
    pub(super) verb: Box<str>,
}

/// The answer of the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReviewAnswer {
    /// Known, and may.
    Allowed,
    /// Known, but may not.
    Denied,
    /// Not known.
    Unauthenticated,
}

/// Decisions with their age.
#[derive(Debug, Default)]
pub(super) struct AccessCache {
    known: HashMap<Question, (ReviewAnswer, Instant)>,
    /// The last time at which the API server left a question without an answer.
    unanswered: Option<Instant>,
}

impl AccessCache {
    /// A decision that still counts.
    pub(super) fn get(&self, question: &Question, now: Instant) -> Option<ReviewAnswer> {
        let (decision, at) = self.known.get(question)?;
        let lasts = if *decision == ReviewAnswer::Allowed { ALLOWED } else { DENIED };
        if now.saturating_duration_since(*at) < lasts {
            return Some(*decision);
        }
        let silent = self.unanswered.is_some_and(|at| now.saturating_duration_since(at) < SILENCE);
        (silent && self.is_trusted(question, now)).then_some(ReviewAnswer::Allowed)
    }

    /// The API server gave no answer about a caller that is trusted.
    pub(super) fn note_silence(&mut self, now: Instant) {
        self.unanswered = Some(now);
    }

    /// True if the caller was allowed lately enough to be trusted while nobody can be asked.
    pub(super) fn is_trusted(&self, question: &Question, now: Instant) -> bool {
        self.known.get(question).is_some_and(|(decision, at)| {
            *decision == ReviewAnswer::Allowed && now.saturating_duration_since(*at) < GRACE
        })
    }

    /// A fresh decision.
    pub(super) fn put(&mut self, question: Question, decision: ReviewAnswer, now: Instant) {
        self.unanswered = None;
        if self.known.len() >= KEPT && !self.known.contains_key(&question) {
            let rank = |(_, (decision, at)): &(&Question, &(ReviewAnswer, Instant))| {
                (*decision == ReviewAnswer::Allowed, *at)
            };
            let oldest = self.known.iter().min_by_key(rank).map(|(question, _)| question.clone());
            if let Some(oldest) = oldest {
                self.known.remove(&oldest);
            }
        }
        self.known.insert(question, (decision, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(token: usize) -> Question {
        Question { token: token.to_string().into(), path: "/metrics".into(), verb: "get".into() }
    }

    #[test]
    fn an_allowance_lasts_longer_than_a_refusal_and_longest_without_anybody_to_ask() {
        let (mut cache, start) = (AccessCache::default(), Instant::now());
        cache.put(question(1), ReviewAnswer::Allowed, start);
        cache.put(question(2), ReviewAnswer::Denied, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(cache.get(&question(1), at(59)), Some(ReviewAnswer::Allowed));
        assert_eq!(cache.get(&question(1), at(60)), None);
        assert_eq!(cache.get(&question(2), at(9)), Some(ReviewAnswer::Denied));
        assert_eq!(cache.get(&question(2), at(10)), None);
        assert!(cache.is_trusted(&question(1), at(179)) && !cache.is_trusted(&question(1), at(180)));
        assert!(!cache.is_trusted(&question(2), at(1)) && !cache.is_trusted(&question(3), at(1)));
    }

    #[test]
    fn invented_tokens_neither_fill_the_memory_nor_push_out_who_is_known() {
        let (mut cache, start) = (AccessCache::default(), Instant::now());
        cache.put(question(0), ReviewAnswer::Allowed, start);
        for token in 1..KEPT + 10 {
            cache.put(
                question(token),
                ReviewAnswer::Unauthenticated,
                start + Duration::from_millis(token as u64),
            );
        }
        assert_eq!(cache.known.len(), KEPT);
        assert!(cache.known.contains_key(&question(0)), "the oldest, but allowed");
        assert!(!cache.known.contains_key(&question(9)) && cache.known.contains_key(&question(11)));
    }

    #[test]
    fn after_silence_trusted_callers_do_not_wait_for_the_next() {
        let (mut cache, start) = (AccessCache::default(), Instant::now());
        cache.put(question(1), ReviewAnswer::Allowed, start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(cache.get(&question(1), at(100)), None);
        cache.note_silence(at(100));
        assert_eq!(cache.get(&question(1), at(109)), Some(ReviewAnswer::Allowed));
        assert_eq!((cache.get(&question(1), at(110)), cache.get(&question(2), at(101))), (None, None));
        cache.note_silence(at(175));
        assert_eq!(cache.get(&question(1), at(181)), None, "trust has an end");
    }
}
