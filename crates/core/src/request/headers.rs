//! HTTP headers as bytes: a client may send anything through the proxy.

use bytes::Bytes;

/// A list of headers in the order they came. Names are lower case; values are bytes, not text.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    entries: Vec<(Bytes, Bytes)>,
}

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header, lower-casing its name.
    pub fn push(&mut self, name: Bytes, value: Bytes) {
        let name =
            if name.iter().any(u8::is_ascii_uppercase) { name.to_ascii_lowercase().into() } else { name };
        self.entries.push((name, value));
    }

    /// Value of the last header called `name` (lower case): of repeated headers the last counts.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.entries.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Value of the first header called `name` (lower case).
    pub fn first(&self, name: &str) -> Option<&Bytes> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Value of [`Headers::get`] as text; `None` if it is absent or no UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Number of headers.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Headers {
    fn from(list: [(&str, &str); N]) -> Self {
        let mut headers = Self::new();
        for (name, value) in list {
            headers.push(Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        }
        headers
    }
}
