//! The facts that a response has reported so far.

use smallvec::SmallVec;

use super::objects::Member;
use crate::request::sse;
use crate::request::types::Usage;
use crate::request::usage::{self, Dialect, Event, Report};

/// The facts that were read so far.
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
        self.last = (self.last || event.last) && !event.goes_on;
        event.reports(self.dialect).for_each(|report| self.report(report));
    }

    /// Adds a member of a document to what its event says.
    pub(super) fn member(&self, member: Member<'_>, event: &mut Event) {
        match member.name {
            "meta_info" if self.dialect != Dialect::Sglang => {}
            "usage" | "meta_info" => {
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

    /// Reads a whole event. Data that is no JSON has nothing to report.
    pub(super) fn whole(&mut self, event: &[u8]) {
        let mut lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
        let mut data = lines.by_ref().filter_map(|line| self.data_of(line));
        let Some(first) = data.next() else { return };
        let more: SmallVec<[&[u8]; 4]> = data.collect();
        if more.is_empty() {
            self.document(first);
            return;
        }
        let joined = [&[first], more.as_slice()].concat().join(&b'\n');
        // Some servers leave out the empty lines between events.
        if !self.document(&joined) {
            [first].into_iter().chain(more).for_each(|data| {
                self.document(data);
            });
        }
    }

    /// The value of a line of data; notes the event's name.
    fn data_of<'l>(&mut self, line: &'l [u8]) -> Option<&'l [u8]> {
        let data = sse::data(line);
        if data.is_none()
            && let Some(name) = sse::event(line)
        {
            self.name(name);
        }
        data
    }

    pub(super) fn name(&mut self, name: &[u8]) {
        self.failed |= usage::is_failure(name);
        self.last |= usage::is_last(name);
    }

    /// False if `data` is no JSON object.
    fn document(&mut self, data: &[u8]) -> bool {
        let event = usage::read_event(self.dialect, data);
        let is_object = event.is_ok();
        if let Ok(event) = event {
            self.event(event);
        }
        is_object
    }
}
