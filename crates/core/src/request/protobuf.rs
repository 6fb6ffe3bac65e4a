//! Walking a protobuf message without building anything, and the frame that gRPC puts around one.

use std::ops::Range;

/// Bytes before a message: a flag, and the length in four bytes.
pub(super) const FRAME_HEAD: usize = 5;

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A number or a truth value.
    Number(u64),
    /// Where text, bytes, a message or packed numbers lie.
    Range(Range<usize>),
    /// A number of fixed length, which no message here has.
    Fixed,
}

/// The fields of one message, as they come.
#[derive(Clone, Debug)]
pub(super) struct Fields<'b> {
    body: &'b [u8],
    at: usize,
    end: usize,
    broken: bool,
}

impl<'b> Fields<'b> {
    /// The fields of the message in this range of `body`.
    pub(super) fn within(body: &'b [u8], range: Range<usize>) -> Self {
        let end = range.end.min(body.len());
        Self { body, at: range.start.min(end), end, broken: false }
    }

    /// True if a field that has come was not one.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    fn read(&mut self) -> Option<(u32, Value)> {
        let tag = self.varint()?;
        let field = u32::try_from(tag >> 3).ok().filter(|field| *field > 0)?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.skip(8)?,
            5 => self.skip(4)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let end = self.at.checked_add(length).filter(|end| *end <= self.end)?;
                let range = self.at..end;
                self.at = end;
                Value::Range(range)
            }
            _ => return None,
        };
        Some((field, value))
    }

    fn skip(&mut self, bytes: usize) -> Option<Value> {
        self.at = self.at.checked_add(bytes).filter(|at| *at <= self.end)?;
        Some(Value::Fixed)
    }

    fn varint(&mut self) -> Option<u64> {
        let (number, length) = varint(self.body.get(self.at..self.end)?)?;
        self.at += length;
        Some(number)
    }
}

impl Iterator for Fields<'_> {
    type Item = (u32, Value);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end || self.broken {
            return None;
        }
        let read = self.read();
        self.broken = read.is_none();
        read
    }
}

/// The number that `bytes` begin with, and how many bytes it takes.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (place, byte) in bytes.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f).checked_shl(7 * place as u32)?;
        if byte & 0x80 == 0 {
            return Some((number, place + 1));
        }
    }
    None
}

/// Where the message of the frame that `body` begins with lies; `None` if the frame is compressed or not whole.
pub(super) fn framed(body: &[u8]) -> Option<Range<usize>> {
    let (head, rest) = body.split_first_chunk::<FRAME_HEAD>()?;
    let [0, length @ ..] = *head else { return None };
    let length = u32::from_be_bytes(length) as usize;
    (length <= rest.len()).then_some(FRAME_HEAD..FRAME_HEAD + length)
}

/// A message in a frame. For tests.
#[cfg(test)]
pub(super) fn frame(message: &[u8]) -> Vec<u8> {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

/// A field with bytes. For tests.
#[cfg(test)]
pub(super) fn bytes_field(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    put_varint(&mut out, bytes.len() as u64);
    out.extend(bytes);
    out
}

/// A field with a number. For tests.
#[cfg(test)]
pub(super) fn number_field(field: u8, number: u64) -> Vec<u8> {
    let mut out = vec![field << 3];
    put_varint(&mut out, number);
    out
}

/// For tests.
#[cfg(test)]
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_come_as_they_lie_and_a_broken_one_ends_the_walk() {
        let message = [number_field(5, 300), bytes_field(3, b"abc"), vec![0x0d, 1, 2, 3, 4]].concat();
        let mut fields = Fields::within(&message, 0..message.len());
        assert_eq!(fields.next(), Some((5, Value::Number(300))));
        assert_eq!(fields.next(), Some((3, Value::Range(5..8))));
        assert_eq!(fields.next(), Some((1, Value::Fixed)));
        assert_eq!((fields.next(), fields.is_broken()), (None, false));
        for broken in [&b"\x1a\x04abc"[..], b"\x08\xff", b"\x0b", b"\x00", b"\x0d\x01"] {
            let mut fields = Fields::within(broken, 0..broken.len());
            assert_eq!((fields.next(), fields.is_broken()), (None, true), "{broken:?}");
        }
    }

    #[test]
    fn a_frame_is_whole_and_not_compressed() {
        let body = frame(b"message");
        assert_eq!(framed(&body), Some(5..12));
        assert_eq!(framed(&[&body[..], b"more"].concat()), Some(5..12));
        assert_eq!(framed(&body[..11]), None);
        assert_eq!(framed(&[&[1][..], &body[1..]].concat()), None);
        assert_eq!((framed(b""), framed(&[0; 4]), framed(&[0; 5])), (None, None, Some(5..5)));
    }

    proptest! {
        #[test]
        fn no_bytes_take_the_walk_out_of_its_range(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let end = cut.min(bytes.len());
            for (_, value) in Fields::within(&bytes, 0..end) {
                if let Value::Range(range) = value {
                    prop_assert!(range.start <= range.end && range.end <= end);
                }
            }
        }
    }
}
