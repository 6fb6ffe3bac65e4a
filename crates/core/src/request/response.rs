//! Reading what a response says of itself while it passes by: token usage, and whether an event stream reports a
//! failure.

mod events;
mod found;
mod frames;
mod objects;

use super::types::{Api, Usage};
use super::usage::{self, Dialect};
use events::EventSource;
use found::Found;
use frames::Frames;
use objects::Members;

/// Reads the usage that a response reports, chunk by chunk. Where the chunks end makes no difference.
///
/// Memory: of a JSON body no more than its `usage` object; of an event stream no more than one event, and of a longer
/// one no more than its `usage` object. Each is at most as long as the limit that the reader was made with. A `usage`
/// object that is longer is passed over and shows in [`ResponseReader::clipped`].
#[derive(Debug)]
pub struct ResponseReader {
    source: Source,
    found: Found,
}

#[derive(Debug)]
enum Source {
    /// The API reports no usage.
    Nothing,
    Json(Members),
    Events(EventSource),
    /// Messages of gRPC.
    Frames(Frames),
}

impl ResponseReader {
    /// A reader for one response to `api`, which comes as an event stream or as one JSON body. `limit` in bytes bounds
    /// what is held between chunks.
    pub fn new(api: Api, event_stream: bool, limit: usize) -> Self {
        let dialect = Dialect::of(api);
        let source = match dialect {
            None => Source::Nothing,
            Some(_) if is_grpc(api) => Source::Frames(Frames::new(api, limit)),
            Some(_) if event_stream => Source::Events(EventSource::new(limit)),
            Some(_) => Source::Json(Members::at_the_top(limit)),
        };
        let dialect = dialect.unwrap_or(Dialect::OpenAi);
        let responses = api == Api::Responses;
        let (usage, unbelievable, failed, clipped, last) = (None, 0, false, false, false);
        Self { source, found: Found { dialect, usage, unbelievable, failed, clipped, last, responses } }
    }

    /// Takes the next bytes of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        let found = &mut self.found;
        match &mut self.source {
            Source::Nothing => {}
            Source::Json(members) => members.feed(chunk, |member| match member {
                Some(member) => {
                    let mut event = usage::Event::default();
                    found.member(member, &mut event);
                    found.failed |= event.failed;
                    event.top.into_iter().for_each(|report| found.report(report));
                }
                None => found.clipped = true,
            }),
            Source::Events(events) => events.feed(chunk, found),
            Source::Frames(frames) => frames.feed(chunk, found),
        }
    }

    /// The body has ended: a last line without an end counts too.
    pub fn finish(&mut self) {
        if let Source::Events(events) = &mut self.source {
            events.finish(&mut self.found);
        }
    }

    /// The usage that the response has reported up to now. Several reports are merged.
    pub fn usage(&self) -> Option<Usage> {
        self.found.usage
    }

    /// How many counts were left out because nobody can believe them: those above 2^40.
    pub fn unbelievable(&self) -> u32 {
        self.found.unbelievable
    }

    /// True if all that matters of the answer has come: its last event, or the whole document.
    pub fn closed(&self) -> bool {
        match &self.source {
            // That a call of gRPC has ended is told by its trailers.
            Source::Nothing | Source::Frames(_) => false,
            Source::Json(members) => members.is_complete(),
            Source::Events(events) => self.found.last || events.ends_with_mark(self.found.dialect),
        }
    }

    /// True if the answer says that it failed, in an event or in a body of status 2xx.
    pub fn failed(&self) -> bool {
        self.found.failed
    }

    /// True if a `usage` object was longer than the limit and therefore not read.
    pub fn clipped(&self) -> bool {
        self.found.clipped
    }
}

fn is_grpc(api: Api) -> bool {
    matches!(api, Api::GrpcGenerate | Api::GrpcEmbed | Api::VertexChat | Api::VertexRaw)
}

#[cfg(test)]
mod event_tests;
#[cfg(test)]
mod frames_tests;
#[cfg(test)]
mod tests;
