//! Bodies of the OpenAI API. Pieces come in the order in which the servers' templates put them into the prompt, not in
//! the order of the body.

use super::chat;
use super::envelope::read_body;
use super::error::{ParseError, ScanError, Unread};
use super::messages::read_messages;
use super::pieces::{Objects, Pieces, read_prompt};
use super::scan::{Cursor, Kind};
use super::types::{Api, Inference};

/// The reference's words before the place where a body is no JSON.
pub(super) const BODY_CONTEXT: &str = "error unmarshaling request bodyMap";

/// The fields of one API: which holds the prompt, which may stand in its place, and which cap the output, in the order
/// they are asked.
struct Fields {
    instead: &'static [&'static [u8]],
    demanded: &'static [u8],
    invalid: &'static str,
    caps: &'static [&'static [u8]],
}

fn fields(api: Api) -> Fields {
    let (demanded, invalid, caps): (&[u8], _, &[&[u8]]) = match api {
        Api::Conversations => (b"items", "invalid conversations request: must have items field", &[]),
        Api::Responses => {
            (b"input", "invalid responses request: must have input field", &[b"max_output_tokens"])
        }
        Api::ChatCompletions => (
            b"messages",
            "invalid chat completions request: must have valid messages field",
            &[b"max_completion_tokens", b"max_tokens"],
        ),
        Api::Embeddings => (b"input", "invalid embeddings request: must have input field", &[]),
        Api::Images => (b"prompt", "invalid images generations request: must have prompt field", &[]),
        _ => (b"prompt", "invalid completions request: must have prompt field", &[b"max_tokens"]),
    };
    // Servers take these as well: template prompts, token ids, embeddings of a prompt.
    let instead: &[&[u8]] = match api {
        Api::Responses => &[b"prompt", b"previous_input_messages"],
        Api::ChatCompletions => &[b"prompt_token_ids", b"input_ids"],
        Api::Embeddings => &[b"messages", b"input_ids"],
        Api::Completions => &[b"prompt_embeds", b"prompt_token_ids", b"input_ids"],
        _ => &[],
    };
    Fields { instead, demanded, invalid, caps }
}

/// Reads a body of `api`.
pub(super) fn parse(api: Api, body: &[u8]) -> Result<Inference, ParseError> {
    let Fields { instead, demanded, invalid, caps } = fields(api);
    let mut instructions = Pieces::default();
    let mut tools = Pieces::default();
    let mut content = Pieces::default();
    let mut substitute = Pieces::default();
    let mut present = false;
    let mut cap_values = [None; 2];
    let mut inference = read_body(body, api, &mut |name, cursor| {
        if name == demanded {
            (content, present) = read_content(api, cursor)?;
        } else if name == b"tools" && matches!(api, Api::ChatCompletions | Api::Responses) {
            tools = read_json(cursor)?;
        } else if name == b"instructions" && api == Api::Responses {
            instructions = read_text_or_json(cursor)?;
        } else if let Some(cap) =
            caps.iter().zip(&mut cap_values).find_map(|(key, cap)| (*key == name).then_some(cap))
        {
            *cap = cursor.count_or_skip()?;
        } else if instead.contains(&name) {
            substitute = read_substitute(name, cursor)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    })
    .map_err(|fault| ParseError::Json { context: BODY_CONTEXT, fault })?;

    inference.max_output_tokens = cap_values.into_iter().flatten().next();
    let present = present || content.len() > 0;
    let missing = !present && substitute.len() == 0;
    instructions.append(tools);
    instructions.append(if present { content } else { substitute });
    (inference.prompt, inference.unread) = instructions.into_prompt();
    if missing {
        inference.unread = Some(Unread::Missing(invalid));
    }
    Ok(inference)
}

/// A field that stands in place of the demanded one.
fn read_substitute(name: &[u8], cursor: &mut Cursor<'_>) -> Result<Pieces, ScanError> {
    match name {
        b"messages" => read_messages(cursor, chat::read_content).map(|(pieces, _)| pieces),
        b"prompt_token_ids" | b"input_ids" => read_prompt(cursor, Objects::Unknown),
        _ => read_text_or_json(cursor),
    }
}

/// The demanded field, and whether it says anything.
fn read_content(api: Api, cursor: &mut Cursor<'_>) -> Result<(Pieces, bool), ScanError> {
    match api {
        Api::ChatCompletions => read_messages(cursor, chat::read_content),
        Api::Responses => {
            let present = cursor.peek()? != Kind::Null;
            Ok((read_text_or_json(cursor)?, present))
        }
        Api::Conversations => {
            let mut pieces = Pieces::default();
            if cursor.peek()? == Kind::Array {
                pieces = read_json(cursor)?;
            } else if cursor.peek()? == Kind::Null {
                cursor.skip()?;
            } else {
                pieces.take_as_it_lies(cursor, "expected an array of items")?;
            }
            let present = pieces.len() > 0;
            Ok((pieces, present))
        }
        // The prompt of a picture is no prefix that a server could have cached: it is only looked for.
        Api::Images => {
            let prompt = cursor.string_or_skip()?;
            Ok((Pieces::default(), prompt.is_some_and(|prompt| prompt.start < prompt.end)))
        }
        _ => {
            let objects = if api == Api::Embeddings { Objects::Known } else { Objects::Unknown };
            let pieces = read_prompt(cursor, objects)?;
            let present = pieces.len() > 0;
            Ok((pieces, present))
        }
    }
}

/// A value that counts as it lies; `null` and empty arrays count as absent.
pub(super) fn read_json(cursor: &mut Cursor<'_>) -> Result<Pieces, ScanError> {
    let mut pieces = Pieces::default();
    let kind = cursor.peek()?;
    let start = cursor.offset();
    let empty = match kind {
        Kind::Array => {
            let mut array = cursor.open()?;
            let mut empty = true;
            while cursor.element(&mut array)? {
                cursor.skip()?;
                empty = false;
            }
            empty
        }
        kind => {
            cursor.skip()?;
            kind == Kind::Null
        }
    };
    if !empty {
        pieces.json(start..cursor.offset());
    }
    Ok(pieces)
}

/// A string counts with its text, any other value as it lies.
fn read_text_or_json(cursor: &mut Cursor<'_>) -> Result<Pieces, ScanError> {
    if cursor.peek()? != Kind::String {
        return read_json(cursor);
    }
    let mut pieces = Pieces::default();
    pieces.text(cursor.string()?);
    Ok(pieces)
}

#[cfg(test)]
mod tests;
