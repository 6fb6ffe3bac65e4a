//! What a response has said of itself so far.

use super::objects::Member;
use crate::request::sse;
use crate::request::types::Usage;
use crate::request::usage::{self, Dialect, Event, Report};

/// What has been read so far.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) dialect: Dialect,
    pub(super) usage: Option<Usage>,
    pub(super) unbelievable: u32,
    pub(super) failed: bool,
    pub(super) clipped: bool,
    /// The last event has come.
    pub(super) last: bool,
    /// The API is that of Responses.
    pub(super) responses: bool,
}

impl Found {
    pub(super) fn report(&mut self, report: Report) {
        self.unbelievable = self.unbelievable.saturating_add(report.unbelievable);
        usage::merge(&mut self.usage, report);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.failed |= event.failed;
        self.last |= event.last;
        event.reports(self.dialect).for_each(|report| self.report(report));
    }

    /// Adds a member of a document to what its event says.
    pub(super) fn member(&self, member: Member<'_>, event: &mut Event) {
        match member.name {
            "usage" => {
                if let Ok(Some(report)) = usage::read_alone(self.dialect, member.bytes) {
                    *(if member.nested { &mut event.nested } else { &mut event.top }) = Some(report);
                }
            }
            "error" => event.failed |= member.bytes != b"\"\"",
            "status" => {
                event.failed |= self.responses && member.text().is_some_and(|status| *status == *b"failed");
            }
            _ if member.nested => {}
            _ => {
                let kind = member.text().unwrap_or_default();
                event.failed |= usage::is_failure(&kind);
                event.last |= usage::is_last(&kind);
            }
        }
    }

    pub(super) fn line(&mut self, line: &[u8]) {
        if let Some(data) = sse::data(line) {
            // A line that is no JSON has nothing to report.
            if let Ok(event) = usage::read_event(self.dialect, data) {
                self.event(event);
            }
        } else if let Some(kind) = sse::event(line) {
            self.failed |= usage::is_failure(kind);
        }
    }
}
