//! JSON as Python reads and writes it: the order of keys, big integers, floats and escapes.

mod number;
mod parse;
mod text;

use std::sync::Arc;

use indexmap::IndexMap;

pub(crate) use number::float_repr;
pub(crate) use text::{DumpStyle, write_string};

/// A map that keeps the order in which its keys were added.
pub(crate) type Map = IndexMap<Arc<str>, Json>;

/// A value of a JSON document.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number without point and exponent.
    Int(i128),
    /// A number with point or exponent; finite.
    Float(f64),
    /// A text.
    Text(Arc<str>),
    /// A list.
    List(Vec<Json>),
    /// An object. If a key is repeated, it keeps its first place and gets its last value, as in Python.
    Map(IndexMap<Arc<str>, Json>),
}

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is not JSON; the number is the byte at fault.
    #[error("no JSON at byte {0}")]
    Syntax(usize),
    /// The document has more than 100 levels.
    #[error("nested deeper than 100 levels, at byte {0}")]
    Depth(usize),
    /// The document has more than 1,048,576 values.
    #[error("more than 1048576 values")]
    Values,
    /// A number is an integer beyond 127 bits, or is not finite. Python reads both.
    #[error("a number that is not represented exactly, at byte {0}")]
    Number(usize),
    /// An escape stands for half of a character. Python reads it.
    #[error("half a surrogate pair, at byte {0}")]
    Surrogate(usize),
}

impl Json {
    /// The text, if the value is one.
    pub(crate) fn text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The entries, if the value is an object.
    pub(crate) fn map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The items, if the value is a list.
    pub(crate) fn list(&self) -> Option<&[Json]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// True for `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Makes a text.
    pub(crate) fn from_text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }
}

/// The value of a key, unless it is absent or `null`.
pub(crate) fn present<'a>(map: &'a Map, key: &str) -> Option<&'a Json> {
    map.get(key).filter(|value| !value.is_null())
}
