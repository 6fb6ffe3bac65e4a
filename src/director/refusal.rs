//! Why a request is not forwarded: decided here, turned into an HTTP answer in `extproc`.

use crate::request::cut;

/// Longest text of a refusal in bytes, without the code in front.
pub(super) const MAX_MESSAGE: usize = 1024;

/// Canonical error codes, as the `error_code` label and the error text name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is at fault.
    BadRequest,
    /// The request is too large.
    PayloadTooLarge,
    /// A condition that the client set does not hold.
    PreconditionFailed,
    /// Too much load.
    ResourceExhausted,
    /// A fault of this process.
    Internal,
    /// Nobody can serve now.
    ServiceUnavailable,
}

impl Code {
    /// The code's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::PayloadTooLarge => "PayloadTooLarge",
            Self::PreconditionFailed => "PreconditionFailed",
            Self::ResourceExhausted => "ResourceExhausted",
            Self::Internal => "Internal",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }

    /// HTTP status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::PreconditionFailed => 412,
            Self::PayloadTooLarge => 413,
            Self::ResourceExhausted => 429,
            Self::Internal => 500,
            Self::ServiceUnavailable => 503,
        }
    }
}

/// Every reason for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No configured parser takes the path.
    NoParser,
    /// The parser rejected the body.
    InvalidBody,
    /// The rewrite rule that matches has no target model.
    ModelMissing,
    /// The model must be replaced, and the proxy shows no body in time.
    RewriteUnseen,
    /// The model may have to be replaced, and lies behind the part of the body that the proxy shows.
    RewriteCut,
    /// A request whose body ended without any byte of it and without its headers saying so, in a mode that has no
    /// answer for it.
    MissingBody,
    /// The body passes the bound of one request.
    BodyTooLarge,
    /// The body passes the bound of one request once it has its target model.
    RewrittenTooLarge,
    /// The body passes a bound once its content-encoding is taken off.
    DecodedTooLarge,
    /// Too many bodies are being decoded.
    DecodersBusy,
    /// All buffered bodies together pass their bound.
    BuffersFull,
    /// More streams than allowed.
    TooManyStreams,
    /// The proxy sent nothing for too long.
    StreamIdle,
    /// The proxy's subset hint cannot be understood.
    InvalidSubset,
    /// The pool, or the subset of it, is empty.
    NoEndpoints,
    /// The pool is full, and the request is not held: its queue is at capacity, or it is sheddable.
    Saturated,
    /// A plugin refuses the request because of the load.
    NotAdmitted,
    /// The request was held for as long as it may be.
    TtlExpired,
    /// The client went away while the request was held.
    ClientGone,
    /// The process ends.
    ShuttingDown,
    /// A more important request took the place of this one while it was being served.
    Evicted,
    /// The filters of the scheduling profile left nothing.
    NothingLeft,
    /// No endpoint has the role that the request needs.
    NoneOfRole,
    /// The scheduler failed otherwise.
    SchedulingFailed,
    /// The scheduler answered without an endpoint.
    NoResult,
    /// The proxy sends no request headers, so there is no way to tell it a destination.
    NoHeaders,
    /// `Prefer: if-available`, and the prompt is cached nowhere.
    NotCached,
    /// A pre-request plugin failed.
    PluginFailed,
    /// This program has a bug.
    Panic,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 29] = [
        Self::NoParser,
        Self::InvalidBody,
        Self::ModelMissing,
        Self::RewriteUnseen,
        Self::RewriteCut,
        Self::MissingBody,
        Self::BodyTooLarge,
        Self::RewrittenTooLarge,
        Self::DecodedTooLarge,
        Self::DecodersBusy,
        Self::BuffersFull,
        Self::TooManyStreams,
        Self::StreamIdle,
        Self::InvalidSubset,
        Self::NoEndpoints,
        Self::Saturated,
        Self::NotAdmitted,
        Self::TtlExpired,
        Self::ClientGone,
        Self::ShuttingDown,
        Self::Evicted,
        Self::NothingLeft,
        Self::NoneOfRole,
        Self::SchedulingFailed,
        Self::NoResult,
        Self::NoHeaders,
        Self::NotCached,
        Self::PluginFailed,
        Self::Panic,
    ];

    /// Name for metrics, logs and the `code` of the error body.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoParser => "no_parser",
            Self::InvalidBody => "invalid_body",
            Self::ModelMissing => "model_missing",
            Self::RewriteUnseen => "rewrite_unseen",
            Self::RewriteCut => "rewrite_cut",
            Self::MissingBody => "missing_body",
            Self::BodyTooLarge => "body_too_large",
            Self::RewrittenTooLarge => "rewritten_too_large",
            Self::DecodedTooLarge => "decoded_too_large",
            Self::DecodersBusy => "decoders_busy",
            Self::BuffersFull => "buffers_full",
            Self::TooManyStreams => "too_many_streams",
            Self::StreamIdle => "stream_idle",
            Self::InvalidSubset => "invalid_subset",
            Self::NoEndpoints => "no_endpoints",
            Self::Saturated => "saturated",
            Self::NotAdmitted => "not_admitted",
            Self::TtlExpired => "ttl_expired",
            Self::ClientGone => "client_gone",
            Self::ShuttingDown => "shutting_down",
            Self::Evicted => "evicted",
            Self::NothingLeft => "nothing_left",
            Self::NoneOfRole => "none_of_role",
            Self::SchedulingFailed => "scheduling_failed",
            Self::NoResult => "no_result",
            Self::NoHeaders => "no_headers",
            Self::NotCached => "not_cached",
            Self::PluginFailed => "plugin_failed",
            Self::Panic => "panic",
        }
    }

    /// Canonical code.
    pub fn code(self) -> Code {
        match self {
            Self::NoParser
            | Self::InvalidBody
            | Self::ModelMissing
            | Self::RewriteUnseen
            | Self::MissingBody => Code::BadRequest,
            Self::BodyTooLarge | Self::RewrittenTooLarge | Self::DecodedTooLarge | Self::RewriteCut => {
                Code::PayloadTooLarge
            }
            Self::BuffersFull
            | Self::DecodersBusy
            | Self::TooManyStreams
            | Self::StreamIdle
            | Self::InvalidSubset
            | Self::NoEndpoints
            | Self::NoneOfRole
            | Self::ClientGone
            | Self::ShuttingDown => Code::ServiceUnavailable,
            Self::NothingLeft
            | Self::SchedulingFailed
            | Self::Saturated
            | Self::NotAdmitted
            | Self::TtlExpired
            | Self::Evicted => Code::ResourceExhausted,
            Self::NotCached => Code::PreconditionFailed,
            Self::NoResult | Self::NoHeaders | Self::PluginFailed | Self::Panic => Code::Internal,
        }
    }

    /// True if the stream itself refuses, before or instead of the director.
    pub fn is_of_the_stream(self) -> bool {
        matches!(
            self,
            Self::MissingBody
                | Self::NoHeaders
                | Self::BodyTooLarge
                | Self::BuffersFull
                | Self::TooManyStreams
                | Self::StreamIdle
                | Self::Panic
        )
    }

    /// Value of `x-llm-d-request-dropped-reason`, for requests that load or an empty pool turned away.
    pub fn dropped(self) -> Option<&'static str> {
        match self {
            Self::NoEndpoints | Self::NoneOfRole | Self::InvalidSubset => Some("rejected-no-endpoints"),
            Self::NothingLeft | Self::Saturated | Self::NotAdmitted => Some("rejected-saturated"),
            Self::TtlExpired => Some("rejected-ttl-expired"),
            Self::ClientGone => Some("rejected-context-cancelled"),
            Self::ShuttingDown => Some("rejected-shutting-down"),
            Self::Evicted => Some("evicted"),
            Self::BuffersFull => Some("rejected-buffers-full"),
            Self::TooManyStreams => Some("rejected-too-many-streams"),
            _ => None,
        }
    }
}

/// A request that is not forwarded, or is stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", self.prefix())]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Text for the client, without the code in front.
    pub message: String,
    /// Seconds after which the client should come again, where more is known than the reason; for 429 and 503 alone.
    pub retry_after: Option<u64>,
}

impl Refusal {
    /// The text before the message: the code, except for a request that was already being served.
    fn prefix(&self) -> String {
        match self.reason {
            Reason::Evicted => String::new(),
            reason => format!("inference error: {} - ", reason.code().name()),
        }
    }

    /// A refusal with this text, of which at most 1024 bytes are kept: it may quote what the client sent.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        let kept = cut(&message, MAX_MESSAGE).len();
        if kept < message.len() {
            message.truncate(kept);
            message.push('…');
        }
        Self { reason, message, retry_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_because_it_may_quote_the_client() {
        let refusal = Refusal::new(Reason::NoParser, "ü".repeat(60_000));
        assert_eq!(refusal.message.len(), MAX_MESSAGE + '…'.len_utf8());
        assert_eq!(Refusal::new(Reason::NoParser, "short").message, "short");
    }
}
