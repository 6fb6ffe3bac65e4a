//! Objects whose members may be repeated.

use std::collections::HashMap;

use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An object of which the last counts where a member is repeated, as in the `json` of Python that model servers read
/// bodies with.
#[derive(Debug, Default)]
pub(super) struct LastMembers<T>(pub(super) T);

impl<'de, T: DeserializeOwned> Deserialize<'de> for LastMembers<T> {
    /// Reads an object. The text must lie in memory whole, for members are looked at only when all are known.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = HashMap::<String, &'de RawValue>::deserialize(deserializer)?;
        T::deserialize(MapDeserializer::new(members.into_iter())).map(Self).map_err(D::Error::custom)
    }
}
