//! The faults that a body can have.

/// Why a body is refused. The text is the reference's, with a place behind it where there is one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The body is not a JSON object.
    #[error("{context}: {fault}")]
    Json {
        /// The step that the parser was at.
        context: &'static str,
        /// Where and why it failed.
        fault: ScanError,
    },
    /// The parser does not serve this path.
    #[error("unsupported API endpoint: {0}")]
    UnsupportedPath(String),
}

/// The part of a body that was not understood. The request goes on all the same, without the features that build on
/// that part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The field that holds the prompt is missing or empty. The text is the reference's.
    #[error("{0}")]
    Missing(&'static str),
    /// A value has a shape that the API does not know.
    #[error("{0}")]
    Shape(Shape),
    /// The body is said to be JSON, and is none.
    #[error("not JSON: {0}")]
    Json(ScanError),
    /// The body is said to be a form, and cannot be taken apart.
    #[error("not a form: {0}")]
    Form(&'static str),
    /// The body is JSON, but no object.
    #[error("the body is JSON, but no object")]
    NotObject,
    /// The body seems to be JSON in UTF-16 or UTF-32.
    #[error("the body is not in UTF-8")]
    Charset,
    /// The body has a content-encoding that is not known.
    #[error("the content-encoding is not known")]
    Encoding,
    /// The body needs a larger window than its content-encoding allows: zstd 8 MiB, brotli 16 MiB.
    #[error("the window of the body exceeds what its content-encoding allows")]
    Window,
    /// No decoder was free in time.
    #[error("too many compressed request bodies at once")]
    Busy,
}

impl Unread {
    /// Name for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Shape(_) => "shape",
            Self::Json(_) => "json",
            Self::Form(_) => "form",
            Self::NotObject => "not_object",
            Self::Charset => "charset",
            Self::Encoding => "encoding",
            Self::Window => "window",
            Self::Busy => "decoders_busy",
        }
    }
}

/// A value of an unexpected shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Shape {
    /// Offset in the body, in bytes.
    pub at: u32,
    /// The value that was expected.
    pub what: &'static str,
}

/// Where and why bytes are not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {at}")]
pub struct ScanError {
    /// Offset in the body, in bytes.
    pub at: usize,
    /// The fault.
    pub fault: Fault,
}

/// A fault of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes end too early.
    #[error("unexpected end")]
    End,
    /// The bytes begin no value.
    #[error("expected a value")]
    Value,
    /// A valid value, but the top level has to be an object.
    #[error("expected an object")]
    Object,
    /// No member name.
    #[error("expected a member name in quotes")]
    Name,
    /// No colon behind a member name.
    #[error("expected a colon")]
    Colon,
    /// Neither a comma nor the end of the object.
    #[error("expected a comma or a closing brace")]
    MemberEnd,
    /// Neither a comma nor the end of the array.
    #[error("expected a comma or a closing bracket")]
    ElementEnd,
    /// A number that breaks off.
    #[error("expected a digit")]
    Digit,
    /// An unknown escape in a string.
    #[error("invalid escape")]
    Escape,
    /// A raw control character in a string.
    #[error("unescaped control character")]
    Control,
    /// Something behind the value.
    #[error("unexpected data behind the value")]
    Trailing,
    /// Nested deeper than 10,000 levels.
    #[error("exceeded max depth")]
    Depth,
    /// The body has more bytes than offsets can tell apart (4 GiB).
    #[error("body too long")]
    Length,
}
