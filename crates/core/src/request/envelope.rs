//! The members that every API shares.

use super::error::ScanError;
use super::scan::{Cursor, Kind};
use super::types::{Api, Inference, JsonStr};

/// Reads one member of the body; returns false, with the value untouched, if the member is of no interest.
pub(super) type ReadMember<'f, 'b> = &'f mut dyn FnMut(&[u8], &mut Cursor<'b>) -> Result<bool, ScanError>;

/// Walks the members of the body: `model`, `stream` and `cache_salt` here, all others through `member`.
pub(super) fn read_body<'b>(
    body: &'b [u8],
    api: Api,
    member: ReadMember<'_, 'b>,
) -> Result<Inference, ScanError> {
    let mut cursor = Cursor::new(body)?;
    let mut inference = Inference { api, empty_object: true, ..Inference::opaque() };
    let mut object = cursor.open_object()?;
    inference.insert_at = Some(cursor.offset());
    let may_refer = matches!(api, Api::Responses | Api::Other);
    while let Some(name) = cursor.member(&mut object)? {
        inference.empty_object = false;
        match cursor.value(name).as_ref() {
            b"model" => {
                cursor.peek()?;
                let start = cursor.offset();
                inference.model = cursor.string_or_skip()?;
                inference.note_model(start..cursor.offset());
            }
            b"stream" => inference.stream = cursor.bool_or_skip()? == Some(true),
            b"previous_response_id" if may_refer => inference.state = cursor.string_or_skip()?,
            b"conversation" if may_refer => inference.conversation = read_reference(&mut cursor)?,
            b"cache_salt" => inference.cache_salt = cursor.string_or_skip()?,
            other => {
                if !member(other, &mut cursor)? {
                    cursor.skip()?;
                }
            }
        }
    }
    cursor.finish()?;
    Ok(inference)
}

/// The id in a value that stands alone: a reference by id.
pub(super) fn reference(value: &[u8]) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(value).ok()?;
    let id = read_reference(&mut cursor).ok()??;
    Some(cursor.value(id).into_owned())
}

/// A reference by id: the id itself, or an object that holds it.
fn read_reference(cursor: &mut Cursor<'_>) -> Result<Option<JsonStr>, ScanError> {
    if cursor.peek()? != Kind::Object {
        return cursor.string_or_skip();
    }
    let mut id = None;
    let mut object = cursor.open()?;
    while let Some(name) = cursor.member(&mut object)? {
        if cursor.value(name).as_ref() == b"id" {
            id = cursor.string_or_skip()?;
        } else {
            cursor.skip()?;
        }
    }
    Ok(id)
}
