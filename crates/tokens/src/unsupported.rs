//! Why a request has no exact tokens.

use crate::encoder::EncodeError;
use crate::json::JsonError;

/// Why the tokens of a request are not known. The request itself may be valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    /// The path is not an API for which prompts are made.
    #[error("the path {0:?} is no API whose prompts are known")]
    Path(String),
    /// The body cannot be read in the way in which the server reads it.
    #[error("the body is not read: {0}")]
    Body(#[from] JsonError),
    /// The server refuses the request, or is expected to refuse it.
    #[error("{field}: {reason}")]
    Refused {
        /// The field of the body.
        field: &'static str,
        /// What is wrong with the field.
        reason: &'static str,
    },
    /// The server accepts the request, but it is not known how it handles this field.
    #[error("{field}: {reason}")]
    Field {
        /// The field of the body.
        field: &'static str,
        /// The fact that is not known.
        reason: &'static str,
    },
    /// The prompt contains images, sounds, videos or embeddings.
    #[error("{0}: the tokens of media are not known")]
    Media(&'static str),
    /// The model has no chat template.
    #[error("the model has no chat template")]
    NoTemplate,
    /// The template ended with an error, or cost too much.
    #[error("the chat template failed: {0}")]
    Template(String),
    /// The text could not be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A part of the request is larger than this crate handles.
    #[error("{what} is {got}, and at most {most} is worked on")]
    TooLarge {
        /// The name of the part.
        what: &'static str,
        /// The size of the part.
        got: usize,
        /// The largest size.
        most: usize,
    },
}

impl Unsupported {
    /// Makes the error for a request that the server refuses.
    pub(crate) fn refused(field: &'static str, reason: &'static str) -> Self {
        Self::Refused { field, reason }
    }

    /// Makes the error for a field that is not understood.
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
