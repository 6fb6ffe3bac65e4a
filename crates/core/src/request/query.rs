//! The model in the query of a request, as in `/v1/realtime?model=…`.

use super::headers::Headers;
use super::model_name::MAX_MODEL_NAME;
use super::percent;

/// Longest key that is compared with `model`, in bytes as written: each byte may be an escape.
const MAX_KEY: usize = 3 * b"model".len();

/// The last parameter `model` of the request's query, decoded. Servers take the last one too. `None` if the query has
/// no such parameter, or if its value is empty or longer than [`MAX_MODEL_NAME`].
pub fn query_model(headers: &Headers) -> Option<String> {
    let (_, query) = split(headers.get(":path")?)?;
    let value = pairs(query).filter_map(model_value).last()?;
    if value.is_empty() || value.len() > 3 * MAX_MODEL_NAME {
        return None;
    }
    let decoded = percent::decode(value);
    let text = String::from_utf8_lossy(&decoded);
    (text.len() <= MAX_MODEL_NAME).then(|| text.into_owned())
}

/// The request's path with `model` in its query instead of the model that stands there. One parameter `model` is left
/// of several, so the path grows by no more than the encoded name. `None` if the query names no model.
pub fn with_query_model(headers: &Headers, model: &str) -> Option<Vec<u8>> {
    let path = headers.get(":path")?;
    let (before, query) = split(path)?;
    let name = percent::encode(model);
    let mut rewritten = Vec::with_capacity(path.len() + name.len());
    rewritten.extend_from_slice(before);
    let (mut is_first, mut found) = (true, false);
    for pair in pairs(query) {
        let value = model_value(pair);
        if value.is_some() && found {
            continue;
        }
        rewritten.push(if is_first { b'?' } else { b'&' });
        is_first = false;
        match value {
            Some(value) => {
                found = true;
                rewritten.extend_from_slice(pair.get(..pair.len() - value.len()).unwrap_or_default());
                rewritten.extend_from_slice(&name);
            }
            None => rewritten.extend_from_slice(pair),
        }
    }
    found.then_some(rewritten)
}

/// A path, and its query without the question mark.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let mark = memchr::memchr(b'?', path)?;
    Some((path.get(..mark)?, path.get(mark + 1..)?))
}

fn pairs(query: &[u8]) -> impl Iterator<Item = &[u8]> {
    query.split(|byte| *byte == b'&')
}

/// The value of a pair whose key is `model`, as it is written.
fn model_value(pair: &[u8]) -> Option<&[u8]> {
    let equals = memchr::memchr(b'=', pair.get(..=MAX_KEY).unwrap_or(pair))?;
    let (key, value) = pair.split_at_checked(equals)?;
    (percent::decode(key).as_ref() == b"model").then(|| value.get(1..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(path: &str) -> Headers {
        Headers::from([(":path", path)])
    }

    fn rewritten(path: &str, model: &str) -> Option<String> {
        with_query_model(&headers(path), model).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn the_model_in_a_query_is_decoded() {
        let model = |path: &str| query_model(&headers(path));
        assert_eq!(model("/v1/realtime?model=m").as_deref(), Some("m"));
        assert_eq!(model("/v1/realtime?x=1&model=org%2Fname+x%").as_deref(), Some("org/name x%"));
        assert_eq!(model("/v1/realtime?%6dodel=m&mode=x").as_deref(), Some("m"));
        for none in [
            "/v1/realtime?model=",
            "/v1/realtime",
            "/v1/realtime?",
            "/v1/realtime?model",
            "/model=m?xmodel=m",
        ] {
            assert_eq!(model(none), None, "{none}");
        }
        assert_eq!(model(&format!("/v1/realtime?model={}", "m".repeat(2000))), None);
    }

    #[test]
    fn of_several_models_the_last_counts_and_one_is_left() {
        let path = "/v1/realtime?model=a&x=1&model=b";
        assert_eq!(query_model(&headers(path)).as_deref(), Some("b"));
        assert_eq!(rewritten(path, "c").as_deref(), Some("/v1/realtime?model=c&x=1"));
    }

    #[test]
    fn another_model_replaces_the_value_and_nothing_else() {
        for (path, expected) in [
            ("/v1/realtime?model=m", "/v1/realtime?model=a%2Fb+c"),
            ("/v1/realtime?&model=m&&y=%3f", "/v1/realtime?&model=a%2Fb+c&&y=%3f"),
            ("/a?b=?model=m&%6dodel=", "/a?b=?model=m&%6dodel=a%2Fb+c"),
        ] {
            assert_eq!(rewritten(path, "a/b c").as_deref(), Some(expected), "{path}");
        }
        assert_eq!(rewritten("/v1/realtime?x=1", "m"), None);
        assert_eq!(rewritten("/v1/realtime", "m"), None);
    }

    #[test]
    fn a_query_of_many_models_does_not_grow_with_their_number() {
        let path = format!("/v1/realtime?{}", "model=&".repeat(8000));
        let model = "m".repeat(MAX_MODEL_NAME);
        assert!(rewritten(&path, &model).unwrap().len() <= path.len() + MAX_MODEL_NAME);
    }

    proptest! {
        #[test]
        fn the_model_that_was_put_in_is_read_again(query in "[a-z=&%0-9+?]{0,40}", model in "[^\u{0}]{1,20}") {
            let headers = headers(&format!("/v1/realtime?{query}&model=x"));
            let path = with_query_model(&headers, &model).unwrap();
            let mut again = Headers::new();
            again.push(bytes::Bytes::from_static(b":path"), path.into());
            prop_assert_eq!(query_model(&again), Some(model));
        }
    }
}
