//! Reading usage from a response while it passes by.

use memchr::memmem::Finder;

use super::skim::{Edge, Shape, Skim, Wanted};
use super::sse::{self, Line, Lines};
use super::types::{Api, Usage};
use super::usage::{self, Dialect};

/// Least bytes of a line that are kept: enough to tell what line it is.
const SHORTEST_LIMIT: usize = 64;

/// Reads the usage that a response reports, chunk by chunk. Where the chunks end makes no difference.
///
/// Memory: of a JSON body no more than its `usage` object, of an event stream no more than one line, each up to the
/// limit that the reader was made with. What is longer is passed over and shows in [`ResponseReader::clipped`].
#[derive(Debug)]
pub struct ResponseReader {
    source: Source,
    found: Found,
}

#[derive(Debug)]
enum Source {
    /// The API reports no usage.
    Nothing,
    Json(JsonSource),
    Events(Lines, Finder<'static>),
}

#[derive(Debug)]
struct JsonSource {
    skim: Skim,
    /// In the middle of a `usage` object.
    open: bool,
    /// What of it has come in earlier chunks.
    held: Vec<u8>,
    limit: usize,
}

/// What has been read so far.
#[derive(Debug)]
struct Found {
    dialect: Dialect,
    usage: Option<Usage>,
    events: u64,
    clipped: bool,
}

impl ResponseReader {
    /// A reader for one response to `api`, which comes as an event stream or as one JSON body. `limit` in bytes bounds
    /// what is held between chunks.
    pub fn new(api: Api, event_stream: bool, limit: usize) -> Self {
        let dialect = Dialect::of(api);
        let source = match dialect {
            None => Source::Nothing,
            Some(_) if event_stream => {
                Source::Events(Lines::new(limit.max(SHORTEST_LIMIT)), Finder::new(b"usage"))
            }
            Some(_) => Source::Json(JsonSource {
                skim: Skim::new(Wanted { name: "usage", within: None, shape: Shape::Object }),
                open: false,
                held: Vec::new(),
                limit,
            }),
        };
        let dialect = dialect.unwrap_or(Dialect::OpenAi);
        Self { source, found: Found { dialect, usage: None, events: 0, clipped: false } }
    }

    /// Takes the next bytes of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        match &mut self.source {
            Source::Nothing => {}
            Source::Json(json) => json.feed(chunk, &mut self.found),
            Source::Events(lines, finder) => lines.feed(chunk, |line| self.found.line(line, finder)),
        }
    }

    /// The body has ended: a last line without an end counts too.
    pub fn finish(&mut self) {
        if let Source::Events(lines, finder) = &mut self.source {
            lines.finish(|line| self.found.line(line, finder));
        }
    }

    /// What the response has reported up to now; several reports are merged.
    pub fn usage(&self) -> Option<Usage> {
        self.found.usage
    }

    /// Data events up to now, without the `[DONE]` that ends a stream. 0 for JSON bodies.
    pub fn events(&self) -> u64 {
        self.found.events
    }

    /// True if something was longer than the limit and therefore not read; it may have held usage.
    pub fn clipped(&self) -> bool {
        self.found.clipped
    }
}

impl JsonSource {
    fn feed(&mut self, chunk: &[u8], found: &mut Found) {
        let mut from = 0;
        let mut start = 0;
        while let Some(edge) = self.skim.next(chunk, &mut from) {
            match edge {
                Edge::Start(at) => {
                    self.open = true;
                    start = at;
                }
                Edge::End(at) => {
                    self.open = false;
                    let part = chunk.get(start..at).unwrap_or_default();
                    if self.held.len() + part.len() > self.limit {
                        found.clipped = true;
                    } else if self.held.is_empty() {
                        found.usage_object(part);
                    } else {
                        self.held.extend_from_slice(part);
                        found.usage_object(&self.held);
                    }
                    self.held = Vec::new();
                }
            }
        }
        if self.open {
            // One byte more than allowed marks an object as too long.
            let part = chunk.get(start..).unwrap_or_default();
            let room = self.limit.saturating_add(1).saturating_sub(self.held.len());
            self.held.extend_from_slice(part.get(..room).unwrap_or(part));
        }
    }
}

impl Found {
    fn usage_object(&mut self, bytes: &[u8]) {
        if let Ok(Some(report)) = usage::read_alone(self.dialect, bytes) {
            usage::merge(&mut self.usage, report);
        }
    }

    fn line(&mut self, line: Line<'_>, finder: &Finder<'_>) {
        let Some(data) = sse::data(line.bytes) else { return };
        if line.cut {
            self.events += 1;
            self.clipped = true;
            return;
        }
        if sse::is_done(data) {
            return;
        }
        self.events += 1;
        if finder.find(data).is_none() {
            return;
        }
        // A line that is no JSON has nothing to report.
        if let Ok(reports) = usage::read_event(self.dialect, data) {
            for report in reports.into_iter().flatten() {
                usage::merge(&mut self.usage, report);
            }
        }
    }
}

#[cfg(test)]
mod tests;
