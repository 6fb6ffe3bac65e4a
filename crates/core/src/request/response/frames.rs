//! Messages of a gRPC response that comes in chunks.

use std::ops::Range;

use super::found::Found;
use crate::request::protobuf::{FRAME_HEAD, Fields, Value};
use crate::request::types::Api;
use crate::request::usage::{self, MAX_COUNT, Report};
use crate::request::vertex;

/// Takes frames apart, wherever chunks end. Of a message no more than the limit is held; a longer one is passed over.
#[derive(Debug)]
pub(super) struct Frames {
    api: Api,
    limit: usize,
    /// The head of the frame that is coming.
    head: Vec<u8>,
    /// Bytes of its message that are still to come.
    left: usize,
    message: Vec<u8>,
    /// The message is passed over.
    skips: bool,
}

impl Frames {
    pub(super) fn new(api: Api, limit: usize) -> Self {
        Self { api, limit, head: Vec::new(), left: 0, message: Vec::new(), skips: false }
    }

    pub(super) fn feed(&mut self, mut chunk: &[u8], found: &mut Found) {
        loop {
            if self.head.len() < FRAME_HEAD {
                let missing = FRAME_HEAD - self.head.len();
                let (head, rest) = chunk.split_at(missing.min(chunk.len()));
                self.head.extend_from_slice(head);
                chunk = rest;
                let Ok([flag, length @ ..]) = <[u8; FRAME_HEAD]>::try_from(self.head.as_slice()) else {
                    return;
                };
                self.left = u32::from_be_bytes(length) as usize;
                self.skips = flag != 0 || self.left > self.limit;
                found.clipped |= self.skips;
                self.message.clear();
            }
            let (bytes, rest) = chunk.split_at(self.left.min(chunk.len()));
            chunk = rest;
            self.left -= bytes.len();
            if !self.skips {
                self.message.extend_from_slice(bytes);
            }
            if self.left > 0 {
                return;
            }
            if !self.skips {
                self.read(found);
            }
            self.head.clear();
        }
    }

    fn read(&self, found: &mut Found) {
        let all = 0..self.message.len();
        match self.api {
            Api::VertexChat | Api::VertexRaw => self.json(found),
            Api::GrpcEmbed => self.counts(all, [2, 0, 0], found),
            _ => {
                for (field, value) in Fields::within(&self.message, all) {
                    match (field, value) {
                        // A chunk of a stream, or the whole answer.
                        (1, Value::Range(inner)) => self.counts(inner, [2, 3, 4], found),
                        (2, Value::Range(inner)) => self.counts(inner, [3, 4, 5], found),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Reads counts from these fields: of prompt, completion and cached tokens.
    fn counts(&self, message: Range<usize>, fields: [u32; 3], found: &mut Found) {
        let mut counts = [0; 3];
        let mut unbelievable = 0;
        for (field, value) in Fields::within(&self.message, message) {
            let place = fields.iter().position(|wanted| *wanted == field);
            if let (Some(place), Value::Number(count)) = (place, value) {
                if count > MAX_COUNT {
                    unbelievable += 1;
                } else {
                    counts[place] = count;
                }
            }
        }
        let [prompt, completion, cached] = counts;
        if prompt > 0 || completion > 0 || unbelievable > 0 {
            let cached = (fields[2] != 0).then_some(cached);
            found.report(Report { prompt, completion, total: 0, cached, unbelievable });
        }
    }

    /// Reads the JSON, or the events, of a `google.api.HttpBody`.
    fn json(&self, found: &mut Found) {
        for (field, value) in Fields::within(&self.message, 0..self.message.len()) {
            let Value::Range(range) = value else { continue };
            let data = self.message.get(range).unwrap_or_default();
            if field != vertex::DATA {
                continue;
            }
            if data.trim_ascii_start().starts_with(b"{") {
                if let Ok(event) = usage::read_event(found.dialect, data) {
                    found.event(event);
                }
            } else {
                found.whole(data);
            }
        }
    }
}
