//! The images, videos and sounds of a request.

use std::collections::HashSet;

use bytes::Bytes;

use crate::request::{JsonObject, json_elements};

/// The types of message parts that encode servers work on.
const KINDS: [&str; 4] = ["image_url", "audio_url", "video_url", "input_audio"];

/// The most items of a request that go to encode servers. The engine that processes the prompt encodes the further
/// ones.
const MOST: usize = 256;

/// Returns the parts of all messages that encode servers work on, in order, as the client wrote them. Two parts with
/// the same URL count as one.
pub(super) fn media_items(request: &JsonObject) -> Vec<Bytes> {
    let mut seen = HashSet::new();
    let messages = request.get("messages").as_ref().and_then(json_elements).unwrap_or_default();
    let parts = messages.into_iter().flat_map(|message| {
        let content = JsonObject::read(message, &["content"]).ok().and_then(|message| message.get("content"));
        content.as_ref().and_then(json_elements).unwrap_or_default()
    });
    let items = parts.filter(|part| {
        let Ok(part) = JsonObject::read(part.clone(), &["type", "image_url", "audio_url", "video_url"])
        else {
            return false;
        };
        let Some(kind) = part.text("type").and_then(|kind| KINDS.into_iter().find(|known| *known == kind))
        else {
            return false;
        };
        let url = part.get(kind).and_then(|value| JsonObject::read(value, &["url"]).ok()?.text("url"));
        url.is_none_or(|url| seen.insert(url))
    });
    items.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_in_order_and_urls_once() {
        let image = |url: &str| format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#);
        let sound = r#"{"type":"input_audio","input_audio":{"data":"x"}}"#;
        let body = format!(
            r#"{{"messages":[{{"role":"system","content":"text"}},{{"content":[{{"type":"text"}},{},{},{sound},{sound}]}},{{"content":[{}]}}]}}"#,
            image("u1"),
            image("u2"),
            image("u1")
        );
        let object = JsonObject::read(Bytes::from(body), &["messages"]).unwrap();
        let items: Vec<_> =
            media_items(&object).iter().map(|item| String::from_utf8(item.to_vec()).unwrap()).collect();
        assert_eq!(items, [image("u1"), image("u2"), sound.to_owned(), sound.to_owned()]);
        for body in ["{}", r#"{"messages":7}"#, r#"{"messages":[1,{"content":[1,null,{"type":"image"}]}]}"#] {
            let object = JsonObject::read(Bytes::from(body), &["messages"]).unwrap();
            assert!(media_items(&object).is_empty(), "{body}");
        }
    }
}
