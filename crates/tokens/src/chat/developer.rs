//! Rewrites messages of the role `developer` for templates that do not know this role.

use std::sync::Arc;

use super::message::{Content, Message};

/// Turns developer messages into system messages. If there are several system messages, joins them into one at the
/// front.
pub(super) fn rewrite(messages: &mut Vec<Message>) {
    if !messages.iter().any(|message| &*message.role == "developer") {
        return;
    }
    for message in messages.iter_mut().filter(|message| &*message.role == "developer") {
        message.role = Arc::from("system");
        message.tools = None;
    }
    let is_system = |message: &Message| &*message.role == "system";
    let count = messages.iter().filter(|message| is_system(message)).count();
    if count == 1 && messages.first().is_some_and(is_system) {
        return;
    }
    let texts = messages.iter().filter(|message| is_system(message)).map(|message| message.content.joined());
    let texts: Vec<String> = texts.filter(|text| !text.is_empty()).collect();
    messages.retain(|message| !is_system(message));
    if !texts.is_empty() {
        let content = Content::Text(Arc::from(texts.join("\n\n")));
        messages.insert(0, Message::plain("system", content));
    }
}
