//! Messages that come while a request is being decided.

use std::sync::Arc;

use prost::Message as _;

use super::wire::{ProcessingRequest, Request};
use crate::director::{BodyBudget, Share};

/// Memory that a message takes beside the bytes in it.
const MESSAGE: u64 = 256;
/// Memory of a header by byte on the wire, at worst: each is a name and two values of a few machine words.
const HEADERS: u64 = 48;

/// Messages that wait until the decision is made, counted against the bound of all bodies. Reading on lets the
/// connection's window move, so that a stream that waits holds up no other one.
#[derive(Debug)]
pub(super) struct Early {
    share: Share,
    messages: Vec<ProcessingRequest>,
}

impl Early {
    /// No messages.
    pub(super) fn new(budget: Arc<BodyBudget>) -> Self {
        Self { share: Share::new(budget), messages: Vec::new() }
    }

    /// Keeps a message. False if the bound has no room for it.
    pub(super) fn push(&mut self, message: ProcessingRequest) -> bool {
        let bytes = message.encoded_len() as u64;
        let bytes = match message.request {
            Some(Request::RequestBody(_) | Request::ResponseBody(_)) => bytes,
            _ => bytes * HEADERS,
        };
        let fits = self.share.grow(bytes + MESSAGE);
        if fits {
            self.messages.push(message);
        }
        fits
    }

    /// All messages, in the order they came. They count no longer.
    pub(super) fn take(&mut self) -> Vec<ProcessingRequest> {
        self.share.shrink(self.share.bytes());
        std::mem::take(&mut self.messages)
    }
}
