//! Series of how answers ended, and of usage that could not be read.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::family::{Definition, Family};

const ENDS: Definition<1> = Definition::new(
    "pointsman_responses_total",
    "Requests that were sent on and have ended, by how their response ended.",
    ["end"],
);

const UNREAD: Definition<1> = Definition::new(
    "pointsman_response_usage_unread_total",
    "Responses whose token usage was left out, or a part of it, by reason.",
    ["reason"],
);

const LIMITED: Definition<0> = Definition::new(
    "pointsman_response_models_limited_total",
    "Responses that kept the served model's name in places, because putting the client's name back would have made them too long.",
    [],
);

/// The end of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEnd {
    /// The proxy showed its end.
    Complete,
    /// Its status is 2xx, and an event or the body tells of an error, however it ended.
    ErrorEvent,
    /// Its status is not 2xx.
    ErrorStatus,
    /// The exchange ended before the response did, but behind its last event or its whole document: only the end is
    /// missing.
    ClosedAfterUsage,
    /// The exchange ended in the middle of the response: the model server broke it off, or the client left.
    CutOff,
    /// The exchange ended before there was a response.
    NoResponse,
    /// The request was stopped for a more important one.
    Evicted,
}

impl ResponseEnd {
    const ALL: [Self; 7] = [
        Self::Complete,
        Self::ErrorEvent,
        Self::ErrorStatus,
        Self::ClosedAfterUsage,
        Self::CutOff,
        Self::NoResponse,
        Self::Evicted,
    ];

    /// Label value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ErrorEvent => "error_event",
            Self::ErrorStatus => "error_status",
            Self::ClosedAfterUsage => "closed_after_usage",
            Self::CutOff => "cut_off",
            Self::NoResponse => "no_response",
            Self::Evicted => "evicted",
        }
    }
}

/// Why usage was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageUnread {
    /// The `usage` object is longer than the bound.
    TooLong,
    /// A count is so large that nobody can believe it.
    Unbelievable,
    /// The body is in a content-encoding that is not read, or is not in the one that it claims.
    Encoding,
}

impl UsageUnread {
    const ALL: [Self; 3] = [Self::TooLong, Self::Unbelievable, Self::Encoding];

    fn label(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Unbelievable => "unbelievable",
            Self::Encoding => "encoding",
        }
    }
}

/// Handles of these series. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AnswerMetrics {
    series: Arc<Series>,
}

#[derive(Debug)]
struct Series {
    ends: [IntCounter; ResponseEnd::ALL.len()],
    unread: [IntCounter; UsageUnread::ALL.len()],
    limited: IntCounter,
}

impl AnswerMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let ends = Family::<IntCounterVec, 1>::register(ENDS, registry);
        let unread = Family::<IntCounterVec, 1>::register(UNREAD, registry);
        let series = Series {
            ends: ResponseEnd::ALL.map(|end| ends.child([end.label()]).into_current()),
            unread: UsageUnread::ALL.map(|reason| unread.child([reason.label()]).into_current()),
            limited: Family::<IntCounterVec, 0>::register(LIMITED, registry).child([]).into_current(),
        };
        Self { series: Arc::new(series) }
    }

    /// Counts a response that ended like this.
    pub fn ended(&self, end: ResponseEnd) {
        if let Some(counter) = self.series.ends.get(end as usize) {
            counter.inc();
        }
    }

    /// Counts a response that kept the served model's name in places.
    pub fn models_limited(&self) {
        self.series.limited.inc();
    }

    /// Counts usage that was not read.
    pub fn usage_unread(&self, reason: UsageUnread) {
        if let Some(counter) = self.series.unread.get(reason as usize) {
            counter.inc();
        }
    }
}
