//! Numbers of a capture that are read back bit for bit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A number that is read exactly as it was written. A number that is not finite is written as null, and null is read as
/// NaN.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exact(pub f64);

impl PartialEq for Exact {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits() || (!self.0.is_finite() && !other.0.is_finite())
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // `serialize_f64` writes the shortest text that is read as the same number.
        if self.0.is_finite() { serializer.serialize_f64(self.0) } else { serializer.serialize_none() }
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        match text.get() {
            "null" => Ok(Self(f64::NAN)),
            number => number.parse().map(Self).map_err(|_| D::Error::custom("expected a number")),
        }
    }
}

/// The hashes of the blocks of a request. Each prompt is one text: the little-endian bytes of its hashes in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chains(pub Vec<Vec<u64>>);

impl Chains {
    /// The number of hashes in all chains.
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// True if there are no hashes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Serialize for Chains {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let chain = |chain: &Vec<u64>| {
            let bytes: Vec<u8> = chain.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            STANDARD.encode(bytes)
        };
        serializer.collect_seq(self.0.iter().map(chain))
    }
}

impl<'de> Deserialize<'de> for Chains {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let chain = |text: String| {
            let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
            let (hashes, rest) = bytes.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(D::Error::custom("expected whole hashes of 8 bytes"));
            }
            Ok(hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect())
        };
        texts.into_iter().map(chain).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_hashes_come_back_bit_for_bit(
            bits in any::<u64>(),
            chains in proptest::collection::vec(proptest::collection::vec(any::<u64>(), 0..9), 0..4),
        ) {
            let number = Exact(f64::from_bits(bits));
            let text = serde_json::to_string(&number).unwrap();
            prop_assert_eq!(serde_json::from_str::<Exact>(&text).unwrap(), number);
            let chains = Chains(chains);
            let text = serde_json::to_string(&chains).unwrap();
            prop_assert_eq!(serde_json::from_str::<Chains>(&text).unwrap(), chains);
        }
    }
}
