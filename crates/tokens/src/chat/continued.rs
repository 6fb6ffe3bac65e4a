//! Handles `continue_final_message`: the prompt ends where the last message ends.

use std::sync::Arc;

use super::message::{Content, Message};
use crate::unsupported::Unsupported;

/// The mark that the server puts after the last message to find its end.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Puts the mark after the last message.
pub(super) fn mark(messages: &mut [Message]) -> Result<(), Unsupported> {
    let none = || Unsupported::refused("continue_final_message", "the last message has no text");
    let last = messages.last_mut().ok_or_else(none)?;
    let text = match &mut last.content {
        Content::Text(text) => text,
        Content::Parts(parts) => parts.last_mut().ok_or_else(none)?,
    };
    if text.contains(MARK.trim_end()) {
        return Err(Unsupported::field("continue_final_message", "the last message holds the server's mark"));
    }
    *text = Arc::from(format!("{text}{MARK}"));
    Ok(())
}

/// The text up to the mark. A template that trims the message also trims the spaces before the mark.
pub(super) fn cut(mut text: String) -> Result<String, Unsupported> {
    let word = MARK.trim_end();
    let lost =
        || Unsupported::refused("continue_final_message", "the template does not print the last message");
    let at = text.rfind(word).ok_or_else(lost)?;
    let kept = text.get(at..).is_some_and(|rest| rest.starts_with(MARK));
    text.truncate(at);
    if !kept {
        let trimmed = text.trim_end_matches(crate::template::is_space).len();
        text.truncate(trimmed);
    }
    Ok(text)
}
