//! Reads usage and ids out of a response while the response passes by.

use std::ops::ControlFlow;

use crate::request::{Api, Headers, Inflater, MadeId, ResponseReader, Usage};

/// The readers of one response, behind the decoder that its content-encoding needs.
#[derive(Debug)]
pub(super) struct Reading {
    decoder: Option<Box<Inflater>>,
    usage: ResponseReader,
    made: Option<Box<MadeId>>,
    /// The encoding is not read, or the body is not in it.
    undecoded: bool,
}

impl Reading {
    /// For a response to `api` with these headers. `limit` in bytes bounds what is held between chunks; `made` asks for
    /// the id of what the server makes.
    pub(super) fn new(api: Api, event_stream: bool, headers: &Headers, limit: usize, made: bool) -> Self {
        let plain = is_plain(headers);
        let decoder = if plain { None } else { Inflater::of(headers).map(Box::new) };
        Self {
            undecoded: !plain && decoder.is_none(),
            decoder,
            usage: ResponseReader::new(api, event_stream, limit),
            made: if made { MadeId::of(api, event_stream).map(Box::new) } else { None },
        }
    }

    /// Takes the next bytes of the body; gives the ids of what the server made as they come.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        if self.undecoded {
            return found;
        }
        let (usage, made) = (&mut self.usage, &mut self.made);
        let mut read = |bytes: &[u8]| {
            usage.feed(bytes);
            if let Some(ControlFlow::Break(())) =
                made.as_mut().map(|made| made.feed(bytes, |id| found.push(id)))
            {
                *made = None;
            }
        };
        match &mut self.decoder {
            None => read(chunk),
            Some(decoder) => self.undecoded = decoder.feed(chunk, read).is_err(),
        }
        found
    }

    /// The body has ended.
    pub(super) fn finish(&mut self) {
        self.usage.finish();
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage.usage()
    }

    pub(super) fn closed(&self) -> bool {
        self.usage.closed()
    }

    pub(super) fn failed(&self) -> bool {
        self.usage.failed()
    }

    pub(super) fn clipped(&self) -> bool {
        self.usage.clipped()
    }

    pub(super) fn unbelievable(&self) -> bool {
        self.usage.unbelievable() > 0
    }

    pub(super) fn undecoded(&self) -> bool {
        self.undecoded
    }
}

/// True if the body has no content-encoding.
pub(super) fn is_plain(headers: &Headers) -> bool {
    headers.get("content-encoding").is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity"))
}
