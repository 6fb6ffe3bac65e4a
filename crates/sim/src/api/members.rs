//! Objects whose members may be repeated.

use std::collections::HashMap;

use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object in which the last value of a repeated member counts, as in Python's `json`, with which model servers read
/// bodies.
#[derive(Debug, Default)]
pub(super) struct LastMembers<T>(pub(super) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for LastMembers<T> {
    /// Reads an object. The whole text must be in memory, because members are read only when all of them are known.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = HashMap::<String, &'de RawValue>::deserialize(deserializer)?;
        T::deserialize(MapDeserializer::new(members.into_iter())).map(Self).map_err(D::Error::custom)
    }
}
