//! Bodies of the Anthropic Messages API.

use super::envelope::read_body;
use super::error::{ParseError, ScanError, Unread};
use super::messages::read_messages;
use super::openai::read_json;
use super::pieces::{Pieces, string_in, text_or_null};
use super::scan::{Cursor, Kind};
use super::types::{Api, Inference, JsonStr, MediaKind};

/// System text that changes from request to request and is no part of the prompt begins so.
const BILLING_HEADER: &[u8] = b"x-anthropic-billing-header";

/// Reads a `messages` body.
pub(super) fn parse(body: &[u8]) -> Result<Inference, ParseError> {
    let (mut tools, mut system, mut messages) = (Pieces::default(), Pieces::default(), Pieces::default());
    let mut any = false;
    let mut cap = None;
    let mut inference = read_body(body, Api::Messages, &mut |name, cursor| {
        match name {
            b"tools" => tools = read_json(cursor)?,
            b"system" => system = read_system(cursor)?,
            b"messages" => {
                (messages, any) =
                    read_messages(cursor, |cursor, pieces| read_content(cursor, pieces, Place::Message))?;
            }
            b"max_tokens" => cap = cursor.count_or_skip()?,
            _ => return Ok(false),
        }
        Ok(true)
    })
    .map_err(|fault| ParseError::Json { context: "error unmarshaling request body", fault })?;

    inference.max_output_tokens = cap;
    let any = any || messages.len() > 0;
    tools.append(system);
    tools.append(messages);
    (inference.prompt, inference.unread) = tools.into_prompt();
    if !any {
        inference.unread = Some(Unread::Missing("invalid messages request: must have at least one message"));
    }
    Ok(inference)
}

fn read_system(cursor: &mut Cursor<'_>) -> Result<Pieces, ScanError> {
    let mut pieces = Pieces::default();
    read_content(cursor, &mut pieces, Place::System)?;
    pieces.close(cursor.offset());
    Ok(pieces)
}

/// Where content blocks stand: it decides which of them count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    System,
    Message,
    ToolResult,
}

fn read_content(cursor: &mut Cursor<'_>, pieces: &mut Pieces, place: Place) -> Result<(), ScanError> {
    match cursor.peek()? {
        Kind::String => {
            let text = cursor.string()?;
            pieces.text(text);
        }
        Kind::Array => {
            let mut blocks = cursor.open()?;
            while cursor.element(&mut blocks)? {
                if cursor.peek()? == Kind::Object {
                    read_block(cursor, pieces, place)?;
                } else {
                    pieces.take_as_it_lies(cursor, "expected a content block")?;
                }
            }
        }
        Kind::Null => {
            cursor.skip()?;
        }
        _ => pieces.take_as_it_lies(cursor, "expected content to be a string or an array of blocks")?,
    }
    Ok(())
}

/// One block: text, thinking, image, a tool's use (id, name, input) or its result (text and images).
fn read_block(cursor: &mut Cursor<'_>, pieces: &mut Pieces, place: Place) -> Result<(), ScanError> {
    let (mut text, mut thinking, mut image) = (None, None, None);
    let (mut id, mut tool, mut input) = (None, None, None);
    let start = pieces.len();
    let mut block = cursor.open()?;
    while let Some(name) = cursor.member(&mut block)? {
        match (cursor.value(name).as_ref(), place) {
            (b"text", _) => text = text_or_null(cursor, pieces, "expected a text")?,
            (b"source", Place::Message | Place::ToolResult) => {
                image = string_in(cursor, &[b"data", b"url", b"file_id"])?;
            }
            (b"thinking", Place::Message) => thinking = text_or_null(cursor, pieces, "expected a text")?,
            (b"id", Place::Message) => id = cursor.string_or_skip()?,
            (b"name", Place::Message) => tool = cursor.string_or_skip()?,
            (b"input", Place::Message) => input = Some(cursor.skip()?),
            // A result holds blocks of its own, but no results: one step deeper and no further. That of a server's tool
            // may be a single object.
            (b"content", Place::Message) => {
                pieces.truncate(start);
                if cursor.peek()? == Kind::Object {
                    pieces.json(cursor.skip()?);
                } else {
                    read_content(cursor, pieces, Place::ToolResult)?;
                }
            }
            _ => {
                cursor.skip()?;
            }
        }
    }
    if let Some(text) = text.filter(|text| place != Place::System || !is_billing_header(cursor, *text)) {
        pieces.text(text);
    }
    for text in [thinking, id, tool].into_iter().flatten() {
        pieces.text(text);
    }
    if let Some(input) = input {
        pieces.json(input);
    }
    pieces.media(MediaKind::Image, image);
    Ok(())
}

fn is_billing_header(cursor: &Cursor<'_>, text: JsonStr) -> bool {
    cursor.value(text).starts_with(BILLING_HEADER)
}

#[cfg(test)]
mod tests;
