//! The modes in which the proxy sends bodies.

use std::str::FromStr;

use super::wire::ProtocolConfiguration;

/// `ProcessingMode.BodySendMode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyMode {
    /// No body is sent.
    None,
    /// Pieces as they come, each answered by one message. Headers are answered before the first piece comes, unless the
    /// proxy says otherwise.
    Streamed,
    /// Headers are answered first; then the whole body comes in one message.
    Buffered,
    /// Like `Buffered`, but the message may hold the first part only.
    BufferedPartial,
    /// Pieces both ways, without correspondence. The only mode in which headers may be answered after the body.
    FullDuplex,
}

impl BodyMode {
    pub(super) fn to_wire(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Streamed => 1,
            Self::Buffered => 2,
            Self::BufferedPartial => 3,
            Self::FullDuplex => 4,
        }
    }

    fn from_wire(number: i32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Streamed,
            2 => Self::Buffered,
            3 => Self::BufferedPartial,
            // 4, and what later versions may add: gRPC mode is full-duplex too.
            _ => Self::FullDuplex,
        }
    }
}

/// A mode name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("got {0:?}, expected full-duplex-streamed, streamed, buffered, buffered-partial or none")]
pub struct UnknownMode(String);

impl FromStr for BodyMode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "none" => Ok(Self::None),
            "streamed" => Ok(Self::Streamed),
            "buffered" => Ok(Self::Buffered),
            "buffered-partial" => Ok(Self::BufferedPartial),
            "full-duplex-streamed" => Ok(Self::FullDuplex),
            _ => Err(UnknownMode(text.to_owned())),
        }
    }
}

/// Modes of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// Of the request body.
    pub request: BodyMode,
    /// Of the response body.
    pub response: BodyMode,
    /// In `Streamed` mode the body comes before the headers are answered.
    pub early_body: bool,
}

impl Default for Modes {
    fn default() -> Self {
        Self { request: BodyMode::FullDuplex, response: BodyMode::FullDuplex, early_body: false }
    }
}

impl From<ProtocolConfiguration> for Modes {
    fn from(config: ProtocolConfiguration) -> Self {
        Self {
            request: BodyMode::from_wire(config.request_body_mode),
            response: BodyMode::from_wire(config.response_body_mode),
            early_body: config.send_body_without_waiting_for_header_response,
        }
    }
}

/// The moment at which a request can be decided in these modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecideAt {
    /// At its headers: the body never comes, or only after they were answered.
    Headers,
    /// At the end of its body.
    BodyEnd,
}

impl Modes {
    /// Changes modes in which the bytes of a tunnel would wait for its end to `Streamed`. Gives the modes that the
    /// proxy must be asked for.
    pub(super) fn for_tunnel(&mut self) -> Option<Self> {
        let mut changed = false;
        for mode in [&mut self.request, &mut self.response] {
            if matches!(mode, BodyMode::Buffered | BodyMode::BufferedPartial) {
                *mode = BodyMode::Streamed;
                changed = true;
            }
        }
        changed.then_some(*self)
    }

    pub(super) fn decide_at(self) -> DecideAt {
        match self.request {
            BodyMode::None => DecideAt::Headers,
            BodyMode::Streamed if !self.early_body => DecideAt::Headers,
            _ => DecideAt::BodyEnd,
        }
    }
}
