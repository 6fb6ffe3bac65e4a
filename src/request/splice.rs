//! Replacing the model in a body without touching any other byte.

use bytes::Bytes;
use smallvec::SmallVec;

use super::escapes;
use super::types::Inference;

/// The pieces of `body` with its top-level `model` set to `model`; joined they are the new body. `inference` must have
/// been parsed from `body`.
///
/// Slices of `body` are shared, not copied. Of repeated members all are replaced, so that it does not matter which one
/// a server reads; a value that is no string is replaced too; a missing member is inserted first. A body whose model
/// can't be set comes back whole.
pub fn splice_model(body: &Bytes, inference: &Inference, model: &str) -> SmallVec<[Bytes; 3]> {
    let Some(insert_at) = inference.insert_at else { return SmallVec::from_iter([body.clone()]) };
    let mut value = escapes::encode(model);
    let mut pieces = SmallVec::new();
    let mut done = 0;
    if inference.model_values.is_empty() {
        value.splice(..0, *b"\"model\":");
        if !inference.empty_object {
            value.push(b',');
        }
        pieces.push(slice(body, 0, insert_at));
        pieces.push(Bytes::from(value));
        done = insert_at;
    } else {
        let value = Bytes::from(value);
        for range in &inference.model_values {
            pieces.push(slice(body, done, range.start));
            pieces.push(value.clone());
            done = range.end;
        }
    }
    pieces.push(slice(body, done, u32::MAX));
    pieces
}

/// Like `Bytes::slice`, with the bounds clamped to the body.
fn slice(body: &Bytes, from: u32, to: u32) -> Bytes {
    let to = body.len().min(to as usize);
    body.slice(to.min(from as usize)..to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::parse::parse;
    use super::super::paths::ParserKind;
    use super::*;

    fn spliced(body: &str, model: &str) -> String {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let inference = parse(ParserKind::OpenAi, "/v1/completions", &bytes).unwrap();
        String::from_utf8(splice_model(&bytes, &inference, model).concat()).unwrap()
    }

    #[test]
    fn only_the_value_of_the_model_changes() {
        for (body, expected) in [
            (r#"{"model" : "a" , "prompt":"x"}"#, r#"{"model" : "new" , "prompt":"x"}"#),
            (r#"{"prompt":"x","n":1.0,"model":"a"}"#, r#"{"prompt":"x","n":1.0,"model":"new"}"#),
            (r#"{"model":"a","prompt":"x","model":"b"}"#, r#"{"model":"new","prompt":"x","model":"new"}"#),
            (r#"{"model":{"a":[1]},"prompt":"x"}"#, r#"{"model":"new","prompt":"x"}"#),
            (r#"{"mod\u0065l":"a","prompt":"x"}"#, r#"{"mod\u0065l":"new","prompt":"x"}"#),
            (r#" {"prompt":"x","o":{"model":"a"}}"#, r#" {"model":"new","prompt":"x","o":{"model":"a"}}"#),
        ] {
            assert_eq!(spliced(body, "new"), expected, "{body}");
        }
    }

    #[test]
    fn the_new_name_is_escaped() {
        assert_eq!(
            spliced(r#"{"model":"a","prompt":"x"}"#, "q\"\\\n"),
            r#"{"model":"q\"\\\n","prompt":"x"}"#
        );
    }

    #[test]
    fn an_empty_object_gets_a_member_without_a_comma() {
        let mut inference = Inference::opaque();
        inference.insert_at = Some(1);
        inference.empty_object = true;
        assert_eq!(splice_model(&Bytes::from_static(b"{}"), &inference, "m").concat(), br#"{"model":"m"}"#);
    }

    #[test]
    fn a_body_that_is_not_looked_into_comes_back_whole() {
        let body = Bytes::from_static(b"anything");
        assert_eq!(splice_model(&body, &Inference::opaque(), "m").as_slice(), std::slice::from_ref(&body));
    }

    #[test]
    fn ranges_of_another_body_do_no_harm() {
        let body = Bytes::from_static(br#"{"prompt":"a long one","model":"a"}"#);
        let inference = parse(ParserKind::OpenAi, "/v1/completions", &body).unwrap();
        splice_model(&Bytes::from_static(b"{}"), &inference, "m");
    }

    #[test]
    fn the_rest_of_the_body_is_shared_not_copied() {
        let body = Bytes::from_static(br#"{"model":"a","prompt":"x"}"#);
        let inference = parse(ParserKind::OpenAi, "/v1/completions", &body).unwrap();
        let pieces = splice_model(&body, &inference, "m");
        assert_eq!(pieces.first().map(|piece| piece.as_ptr()), Some(body.as_ptr()));
        assert_eq!(pieces.last().map(|piece| piece.as_ptr()), Some(body[12..].as_ptr()));
    }

    proptest! {
        #[test]
        fn every_other_member_keeps_its_value(
            members in proptest::collection::vec(("[a-z]{0,6}|model|prompt", any::<String>()), 0..6),
            model in any::<String>(),
        ) {
            let list: Vec<_> = members
                .iter()
                .chain([&("prompt".to_owned(), "p".to_owned())])
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), Value::from(value.as_str())))
                .collect();
            let body = format!("{{{}}}", list.join(","));
            let mut expected: Value = serde_json::from_str(&body).unwrap();
            expected["model"] = Value::from(model.as_str());
            let new: Value = serde_json::from_str(&spliced(&body, &model)).unwrap();
            prop_assert_eq!(new, expected);
        }
    }
}
