//! The part of MessagePack that the events use. Values are read in place, or skipped.
//!
//! The format is that of github.com/msgpack/msgpack/blob/master/spec.md. Nothing is allocated, nothing recurses, and
//! lengths that reach beyond the bytes that are there are errors.

/// Error: the bytes are not MessagePack, or the value has another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// The next value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'b> {
    Nil,
    Boolean,
    /// A whole number that is 0 or more.
    Unsigned(u64),
    /// A whole number below 0.
    Negative(i64),
    Float,
    Text(&'b [u8]),
    Bytes(&'b [u8]),
    /// The head of an array with this many values, which follow.
    Array(usize),
    /// The head of a map with this many pairs, which follow.
    Map(usize),
    Extension,
}

/// Reads values one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The number of bytes that are left.
    #[cfg(test)]
    fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], Unreadable> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Unreadable)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Reads a big-endian number of `count` bytes. `count` is at most eight.
    fn number(&mut self, count: usize) -> Result<u64, Unreadable> {
        Ok(self.take(count)?.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    fn length(&mut self, count: usize) -> Result<usize, Unreadable> {
        usize::try_from(self.number(count)?).map_err(|_| Unreadable)
    }

    /// Returns `count`, or an error if the collection has more members than there are bytes left.
    fn members(&self, count: usize) -> Result<usize, Unreadable> {
        if count <= self.rest.len() { Ok(count) } else { Err(Unreadable) }
    }

    fn signed(&mut self, count: usize) -> Result<Value<'b>, Unreadable> {
        let shift = 64 - 8 * count as u32;
        let number = (self.number(count)? << shift).cast_signed() >> shift;
        Ok(u64::try_from(number).map_or(Value::Negative(number), Value::Unsigned))
    }

    /// Reads the next value. Of an array or a map it reads only the head.
    pub(super) fn value(&mut self) -> Result<Value<'b>, Unreadable> {
        let head = self.take(1)?.first().copied().ok_or(Unreadable)?;
        Ok(match head {
            0x00..=0x7f => Value::Unsigned(head.into()),
            0xe0..=0xff => Value::Negative(i64::from(head.cast_signed())),
            0x80..=0x8f => Value::Map(self.members(usize::from(head & 0x0f))?),
            0x90..=0x9f => Value::Array(self.members(usize::from(head & 0x0f))?),
            0xa0..=0xbf => Value::Text(self.take(usize::from(head & 0x1f))?),
            0xc0 => Value::Nil,
            0xc1 => return Err(Unreadable),
            0xc2 | 0xc3 => Value::Boolean,
            0xc4..=0xc6 => {
                let length = self.length(1 << (head - 0xc4))?;
                Value::Bytes(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (head - 0xc7))?;
                self.take(length.checked_add(1).ok_or(Unreadable)?)?;
                Value::Extension
            }
            0xca | 0xcb => {
                self.take(if head == 0xca { 4 } else { 8 })?;
                Value::Float
            }
            0xcc..=0xcf => Value::Unsigned(self.number(1 << (head - 0xcc))?),
            0xd0..=0xd3 => self.signed(1 << (head - 0xd0))?,
            0xd4..=0xd8 => {
                self.take((1 << (head - 0xd4)) + 1)?;
                Value::Extension
            }
            0xd9..=0xdb => {
                let length = self.length(1 << (head - 0xd9))?;
                Value::Text(self.take(length)?)
            }
            0xdc | 0xdd => {
                let count = self.length(2 << (head - 0xdc))?;
                Value::Array(self.members(count)?)
            }
            0xde | 0xdf => {
                let count = self.length(2 << (head - 0xde))?;
                Value::Map(self.members(count)?)
            }
        })
    }

    /// Skips the next value with everything in it, and returns its bytes.
    pub(super) fn skip(&mut self) -> Result<&'b [u8], Unreadable> {
        let start = self.rest;
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            left = match self.value()? {
                Value::Array(count) => left.checked_add(count),
                Value::Map(pairs) => pairs.checked_mul(2).and_then(|values| left.checked_add(values)),
                _ => Some(left),
            }
            .ok_or(Unreadable)?;
        }
        start.get(..start.len() - self.rest.len()).ok_or(Unreadable)
    }

    /// Reads the head of an array, and returns the number of its values.
    pub(super) fn array(&mut self) -> Result<usize, Unreadable> {
        match self.value()? {
            Value::Array(count) => Ok(count),
            _ => Err(Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_type_is_read_and_passed_over() {
        for (bytes, expected) in [
            (&[0x07][..], Value::Unsigned(7)),
            (&[0xff], Value::Negative(-1)),
            (&[0xc0], Value::Nil),
            (&[0xc3], Value::Boolean),
            (&[0xcd, 1, 0], Value::Unsigned(256)),
            (&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Value::Unsigned(u64::MAX)),
            (&[0xd0, 0x80], Value::Negative(-128)),
            (&[0xd3, 0, 0, 0, 0, 0, 0, 0, 5], Value::Unsigned(5)),
            (&[0xcb, 0, 0, 0, 0, 0, 0, 0, 0], Value::Float),
            (&[0xa2, b'h', b'i'], Value::Text(b"hi")),
            (&[0xd9, 1, b'x'], Value::Text(b"x")),
            (&[0xc4, 2, 1, 2], Value::Bytes(&[1, 2])),
            (&[0xd4, 1, 2], Value::Extension),
            (&[0xc7, 1, 9, 0], Value::Extension),
        ] {
            assert_eq!(Reader::new(bytes).value(), Ok(expected), "{bytes:?}");
            assert_eq!(Reader::new(bytes).skip(), Ok(bytes), "{bytes:?}");
        }
        let nested = [0x92, 0x81, 0xa1, b'a', 0x93, 1, 2, 3, 0xdc, 0, 1, 0xc0, 0x42];
        let mut reader = Reader::new(&nested);
        assert_eq!(reader.skip(), Ok(&nested[..12]));
        assert_eq!(reader.left(), 1);
    }

    #[test]
    fn lengths_beyond_the_bytes_are_errors() {
        for bytes in [
            &[0xdd, 0xff, 0xff, 0xff, 0xff][..],
            &[0xdf, 0xff, 0xff, 0xff, 0xff, 1],
            &[0xc6, 0xff, 0xff, 0xff, 0xff],
            &[0x92, 1],
            &[0xc1],
            &[],
        ] {
            assert_eq!(Reader::new(bytes).skip(), Err(Unreadable), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::new(&bytes);
            let mut left = reader.left();
            while reader.skip().is_ok() {
                prop_assert!(reader.left() < left);
                left = reader.left();
            }
        }
    }
}
