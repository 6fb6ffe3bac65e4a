//! Which records somebody asks for.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::record::Record;
use super::ring::Decisions;
use super::view::{DecisionView, ListView};
use crate::telemetry::rfc3339;

/// Most decisions in one answer.
const MOST: usize = 1000;
/// Decisions in an answer where nobody says how many.
const USUAL: usize = 100;

/// In which order they are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Newest first.
    #[default]
    Newest,
    /// Slowest first.
    Slowest,
}

/// What a record must be like. What is not given, fits all.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Model as asked for, or after rewriting.
    model: Option<String>,
    /// The picked endpoint: `namespace/name`, name, pod or address.
    endpoint: Option<String>,
    fairness_id: Option<String>,
    /// `refused`, `running`, how the response ended, the reason of a refusal, or a status.
    outcome: Option<String>,
    /// RFC 3339 in UTC.
    since: Option<String>,
    limit: usize,
    sort: Sort,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            model: None,
            endpoint: None,
            fairness_id: None,
            outcome: None,
            since: None,
            limit: USUAL,
            sort: Sort::Newest,
        }
    }
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A parameter that there is not.
    #[error(
        "there is no parameter {0:?}; parameters are model, endpoint, fairness_id, outcome, since, limit and sort"
    )]
    Unknown(String),
    /// A value that it cannot have.
    #[error("{0}: got {1:?}, expected {2}")]
    Value(&'static str, String, &'static str),
}

impl Query {
    /// Reads the parameters of an address. Times are told from `now`.
    pub fn read(parameters: &[(String, String)], now: SystemTime) -> Result<Self, QueryError> {
        let mut query = Self::default();
        for (name, value) in parameters {
            if value.is_empty() {
                continue;
            }
            let text = || Some(value.clone());
            match name.as_str() {
                "model" => query.model = text(),
                "endpoint" => query.endpoint = text(),
                "fairness_id" => query.fairness_id = text(),
                "outcome" => query.outcome = text(),
                "since" => query.since = Some(since(value, now)?),
                "limit" => query.limit = limit(value)?,
                "sort" => query.sort = sort(value)?,
                _ => return Err(QueryError::Unknown(name.clone())),
            }
        }
        Ok(query)
    }

    fn fits(&self, record: &Record) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let known = &record.known;
        (is(&self.model, &known.model) || is(&self.model, &known.target_model))
            && is(&self.fairness_id, &known.fairness_id)
            && self.endpoint.as_ref().is_none_or(|wanted| {
                record.winner().is_some_and(|winner| {
                    let id = winner.id();
                    *wanted == id.name()
                        || *wanted == *winner.spec().pod
                        || *wanted == winner.target()
                        || *wanted == id.to_string()
                })
            })
            && self.outcome.as_ref().is_none_or(|wanted| record.ended_as(wanted))
            && self.since.as_ref().is_none_or(|since| rfc3339(record.time).as_str() >= since.as_str())
    }
}

impl Record {
    fn ended_as(&self, wanted: &str) -> bool {
        use super::facts::Verdict;
        if self.state() == wanted {
            return true;
        }
        match (&self.verdict, self.outcome.get()) {
            (Verdict::Refused { reason, status, .. }, _) => *reason == wanted || status.to_string() == wanted,
            (_, Some(outcome)) => outcome.status > 0 && outcome.status.to_string() == wanted,
            (_, None) => false,
        }
    }
}

impl Decisions {
    /// The records that fit.
    pub fn list(&self, query: &Query) -> ListView {
        let mut found: Vec<Arc<Record>> = self.all();
        let kept = found.len();
        found.retain(|record| query.fits(record));
        if query.sort == Sort::Slowest {
            found.sort_by_key(|record| std::cmp::Reverse(record.slowness().unwrap_or(Duration::ZERO)));
        }
        let decisions = found.iter().take(query.limit).map(|record| record.summary()).collect();
        ListView { kept, one_in: self.one_in(), decisions }
    }

    /// The newest record of the request with this id.
    pub fn find(&self, id: &str) -> Option<DecisionView> {
        self.all().iter().find(|record| record.known.id == id).map(|record| record.view())
    }

    /// The record with this number.
    pub fn numbered(&self, sequence: u64) -> Option<DecisionView> {
        self.all().iter().find(|record| record.sequence == sequence).map(|record| record.view())
    }
}

const TIMES: &str = "a duration such as 5m, seconds since 1970, or a time such as 2026-01-31T23:59:00Z";

/// The time from which records count, in RFC 3339.
fn since(text: &str, now: SystemTime) -> Result<String, QueryError> {
    let wrong = || QueryError::Value("since", text.to_owned(), TIMES);
    if let Ok(seconds) = text.parse::<f64>() {
        let since = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        return UNIX_EPOCH.checked_add(since).map(rfc3339).ok_or_else(wrong);
    }
    let stamp = text.as_bytes();
    if stamp.len() >= 20
        && stamp.len() <= 30
        && stamp[4] == b'-'
        && stamp[10] == b'T'
        && stamp.ends_with(b"Z")
    {
        // Texts of one form are in the order of their times. The fraction, if there is one, counts.
        return Ok(text.trim_end_matches('Z').to_owned());
    }
    let age = crate::document::scalar::go_duration(text).map_err(|_| wrong())?;
    Ok(rfc3339(now.checked_sub(age).unwrap_or(UNIX_EPOCH)))
}

fn limit(text: &str) -> Result<usize, QueryError> {
    let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
    limit.ok_or_else(|| QueryError::Value("limit", text.to_owned(), "a number from 1 to 1000"))
}

fn sort(text: &str) -> Result<Sort, QueryError> {
    match text {
        "newest" => Ok(Sort::Newest),
        "slowest" => Ok(Sort::Slowest),
        _ => Err(QueryError::Value("sort", text.to_owned(), "newest or slowest")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<Query, QueryError> {
        let parameters: Vec<_> = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Query::read(&parameters, UNIX_EPOCH + Duration::from_hours(1))
    }

    #[test]
    fn times_are_durations_seconds_or_stamps() {
        let since = |text: &str| read(&[("since", text)]).unwrap().since.unwrap();
        assert_eq!(since("10m"), "1970-01-01T00:50:00.000000000Z");
        assert_eq!(since("60"), "1970-01-01T00:01:00.000000000Z");
        assert_eq!(since("2026-01-31T23:59:00Z"), "2026-01-31T23:59:00");
        assert!("2026-01-31T23:59:00.000000001Z" >= since("2026-01-31T23:59:00Z").as_str());
        for text in ["yesterday", "-5", "1e300", "2026"] {
            assert!(text == "2026" || read(&[("since", text)]).is_err(), "{text}");
        }
    }

    #[test]
    fn a_parameter_that_is_misspelt_or_out_of_range_is_named() {
        let error = |name, value| read(&[(name, value)]).unwrap_err().to_string();
        assert!(error("modle", "m").contains("\"modle\""));
        assert!(error("limit", "0").contains("1 to 1000"));
        assert!(error("limit", "1001").contains("\"1001\""));
        assert!(error("sort", "best").contains("newest or slowest"));
    }
}
