//! A list of messages with roles, which all chat APIs have in common.

use super::error::ScanError;
use super::pieces::{Pieces, text_or_null};
use super::scan::{Cursor, Kind};

/// The `messages` of a conversation, and whether there is at least one. `read_content` reads what the API allows as
/// their content.
pub(super) fn read_messages(
    cursor: &mut Cursor<'_>,
    read_content: impl Fn(&mut Cursor<'_>, &mut Pieces) -> Result<(), ScanError>,
) -> Result<(Pieces, bool), ScanError> {
    let mut pieces = Pieces::default();
    let mut any = false;
    match cursor.peek()? {
        Kind::Array => {
            let mut messages = cursor.open()?;
            while cursor.element(&mut messages)? {
                any = true;
                read_message(cursor, &mut pieces, &read_content)?;
            }
        }
        Kind::Null => {
            cursor.skip()?;
        }
        _ => pieces.take_as_it_lies(cursor, "expected an array of messages")?,
    }
    pieces.close(cursor.offset());
    Ok((pieces, any))
}

fn read_message(
    cursor: &mut Cursor<'_>,
    pieces: &mut Pieces,
    read_content: impl Fn(&mut Cursor<'_>, &mut Pieces) -> Result<(), ScanError>,
) -> Result<(), ScanError> {
    if cursor.peek()? != Kind::Object {
        return pieces.take_as_it_lies(cursor, "expected a message object");
    }
    let start = pieces.len();
    let mut role = None;
    let mut message = cursor.open()?;
    while let Some(name) = cursor.member(&mut message)? {
        match cursor.value(name).as_ref() {
            b"role" => role = text_or_null(cursor, pieces, "expected a role")?,
            b"content" => {
                pieces.truncate(start);
                read_content(cursor, pieces)?;
            }
            _ => {
                cursor.skip()?;
            }
        }
    }
    if let Some(role) = role {
        pieces.text_before(start, role);
    }
    Ok(())
}
