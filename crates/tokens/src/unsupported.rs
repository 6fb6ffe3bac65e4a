//! Why a request has no exact tokens.

use crate::encoder::EncodeError;
use crate::json::JsonError;

/// Why the tokens of a request are not known. The request itself may be fine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The path is none whose prompts are known.
    #[error("the path {0:?} is no API whose prompts are known")]
    Path(String),
    /// The body cannot be read the way that the server reads it.
    #[error("the body is not read: {0}")]
    Body(#[from] JsonError),
    /// The server refuses the request, or is expected to.
    #[error("{field}: {reason}")]
    Refused {
        /// Field of the body.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server accepts the request, and what it makes of this field is not known here.
    #[error("{field}: {reason}")]
    Field {
        /// Field of the body.
        field: &'static str,
        /// What is not known.
        reason: &'static str,
    },
    /// The prompt holds images, sounds, videos or embeddings.
    #[error("{0}: the tokens of media are not known")]
    Media(&'static str),
    /// The model has no chat template.
    #[error("the model has no chat template")]
    NoTemplate,
    /// The template ended with an error, or cost too much.
    #[error("the chat template failed: {0}")]
    Template(String),
    /// The text was not encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// More than is worked on.
    #[error("{what} is {got}, and at most {most} is worked on")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        got: usize,
        /// The bound.
        most: usize,
    },
}

impl Unsupported {
    /// A refusal of the server.
    pub(crate) fn refused(field: &'static str, reason: &'static str) -> Self {
        Self::Refused { field, reason }
    }

    /// A field that is not understood.
    pub(crate) fn field(field: &'static str, reason: &'static str) -> Self {
        Self::Field { field, reason }
    }

    /// A short word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Body(_) => "body",
            Self::Refused { .. } => "refused",
            Self::Field { .. } => "field",
            Self::Media(_) => "media",
            Self::NoTemplate => "no_template",
            Self::Template(_) => "template",
            Self::Encode(EncodeError::Stopped) => "stopped",
            Self::Encode(EncodeError::Failed(_)) => "encode",
            Self::TooLarge { .. } => "too_large",
        }
    }
}
