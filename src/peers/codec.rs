//! The codec of a follower. An empty row takes two bytes on the wire and dozens of bytes in memory, so the rows of a
//! message are counted before they are decoded.

use bytes::Buf as _;
use prost::Message as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use super::wire::{FollowRequest, Update};

/// The most fields of one message, with those of its bands. A peer sends a tenth of that.
const MOST_FIELDS: usize = 65_536;
/// The number of the message field that contains the bands.
const WAITING: u32 = 14;

/// Encodes a question and decodes updates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FollowerCodec;

/// Decodes updates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UpdateDecoder;

impl Codec for FollowerCodec {
    type Encode = FollowRequest;
    type Decode = Update;
    type Encoder = ProstEncoder<FollowRequest>;
    type Decoder = UpdateDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<FollowRequest, Update>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        UpdateDecoder
    }
}

impl Decoder for UpdateDecoder {
    type Item = Update;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Update>, Status> {
        let bytes = source.copy_to_bytes(source.remaining());
        read(&bytes).map(Some)
    }
}

/// A message from its bytes, which may be anything.
pub(super) fn read(bytes: &[u8]) -> Result<Update, Status> {
    if fields(bytes).is_none_or(|fields| fields > MOST_FIELDS) {
        return Err(Status::internal(format!("a message has more than {MOST_FIELDS} fields, or is none")));
    }
    Update::decode(bytes).map_err(|error| Status::internal(error.to_string()))
}

/// The number of fields in a message and in its bands. `None` if the bytes are not a message.
fn fields(mut bytes: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        let (field, kind) = decode_key(&mut bytes).ok()?;
        count += 1;
        if field == WAITING && kind == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
            let (mut bands, rest) = bytes.split_at_checked(length)?;
            while !bands.is_empty() {
                skip(&mut bands)?;
                count += 1;
            }
            bytes = rest;
        } else {
            skip_field(kind, field, &mut bytes, DecodeContext::default()).ok()?;
        }
    }
    Some(count)
}

fn skip(bytes: &mut &[u8]) -> Option<()> {
    let (field, kind) = decode_key(bytes).ok()?;
    skip_field(kind, field, bytes, DecodeContext::default()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::wire::{AssignmentRow, BandRow, Waiting};
    use super::*;

    #[test]
    fn a_message_of_countless_empty_rows_is_not_read() {
        let rows = |count| Update { assignments: vec![AssignmentRow::default(); count], ..Update::default() };
        let bands = |count| {
            let waiting = Some(Waiting { bands: vec![BandRow::default(); count] });
            Update { waiting, ..Update::default() }
        };
        for make in [&rows as &dyn Fn(usize) -> Update, &bands] {
            let message = make(60_000);
            assert_eq!(read(&message.encode_to_vec()).unwrap(), message);
            assert!(read(&make(70_000).encode_to_vec()).is_err());
        }
        assert!(read(b"\x08").is_err());
    }
}
