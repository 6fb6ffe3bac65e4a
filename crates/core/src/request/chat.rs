//! Chat messages: role, then content, message by message. Tool calls are not part of the prompt estimate.

use super::error::ScanError;
use super::pieces::{Pieces, string_in, text_or_null};
use super::scan::{Cursor, Kind};
use super::types::MediaKind;

/// The content of a chat message: text, or a list of parts.
pub(super) fn read_content(cursor: &mut Cursor<'_>, pieces: &mut Pieces) -> Result<(), ScanError> {
    match cursor.peek()? {
        Kind::String => {
            let text = cursor.string()?;
            pieces.text(text);
        }
        Kind::Array => {
            let mut parts = cursor.open()?;
            while cursor.element(&mut parts)? {
                read_part(cursor, pieces)?;
            }
        }
        Kind::Null => {
            cursor.skip()?;
        }
        _ => pieces.take_as_it_lies(cursor, "expected content to be a string or an array of parts")?,
    }
    Ok(())
}

/// One part of a content. Servers take a bare string for a text part, and a bare URL where an object with a `url` is
/// documented; so do we.
fn read_part(cursor: &mut Cursor<'_>, pieces: &mut Pieces) -> Result<(), ScanError> {
    match cursor.peek()? {
        Kind::String => {
            let text = cursor.string()?;
            pieces.text(text);
            return Ok(());
        }
        Kind::Object => {}
        _ => return pieces.take_as_it_lies(cursor, "expected a content part"),
    }
    let (mut text, mut image, mut audio, mut video) = (None, None, None, None);
    let mut part = cursor.open()?;
    while let Some(name) = cursor.member(&mut part)? {
        match cursor.value(name).as_ref() {
            b"text" => text = text_or_null(cursor, pieces, "expected a text")?,
            b"image_url" => image = string_in(cursor, &[b"url"])?,
            b"input_audio" => audio = string_in(cursor, &[b"data"])?,
            b"audio_url" => audio = string_in(cursor, &[b"url"])?,
            b"video_url" => video = string_in(cursor, &[b"url"])?,
            _ => {
                cursor.skip()?;
            }
        }
    }
    if let Some(text) = text {
        pieces.text(text);
    }
    pieces.media(MediaKind::Image, image);
    pieces.media(MediaKind::Audio, audio);
    pieces.media(MediaKind::Video, video);
    Ok(())
}
