//! JSON as Python reads and writes it: order of keys, big integers, floats, escapes.

mod number;
mod parse;
mod text;

use std::sync::Arc;

use indexmap::IndexMap;

pub(crate) use number::float_repr;
pub(crate) use text::{DumpStyle, write_string};

/// A map that keeps the order in which its keys came.
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
    /// Text.
    Text(Arc<str>),
    /// A list.
    List(Vec<Json>),
    /// An object. Of a key that comes twice the first place and the last value count, as in Python.
    Map(IndexMap<Arc<str>, Json>),
}

/// Why a document is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// No JSON, at this byte.
    #[error("no JSON at byte {0}")]
    Syntax(usize),
    /// Deeper than 100 levels.
    #[error("nested deeper than 100 levels, at byte {0}")]
    Depth(usize),
    /// More than a million values.
    #[error("more than 1048576 values")]
    Values,
    /// An integer beyond 127 bits, or a number that is not finite; Python reads both.
    #[error("a number that is not represented exactly, at byte {0}")]
    Number(usize),
    /// An escape of half a character; Python reads it.
    #[error("half a surrogate pair, at byte {0}")]
    Surrogate(usize),
}

impl Json {
    /// Text of a text.
    pub(crate) fn text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Entries of an object.
    pub(crate) fn map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// Items of a list.
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

    /// A text.
    pub(crate) fn from_text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }
}

/// The value of a key that is there and not `null`.
pub(crate) fn present<'a>(map: &'a Map, key: &str) -> Option<&'a Json> {
    map.get(key).filter(|value| !value.is_null())
}
