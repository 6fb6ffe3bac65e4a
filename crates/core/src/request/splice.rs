//! Replacing the model in a body without touching any other byte.

use bytes::Bytes;
use smallvec::SmallVec;

use super::pieces_of_body::Joined;
use super::types::{Inference, Spelling};
use super::{escapes, percent};

/// The pieces of `body` with its top-level `model` set to `model`; joined they are the new body. `inference` must have
/// been parsed from `body`.
///
/// Slices of `body` are shared, but for short ones, which are copied together with the name. Of repeated members all
/// are replaced, so that it does not matter which one a server reads; a value that is no string is replaced too; a
/// missing member is inserted first. A body whose model can't be set comes back whole.
///
/// The new body is longer by at most the quoted name for each of the
/// [`MAX_MODEL_MEMBERS`](super::MAX_MODEL_MEMBERS) members that an [`Inference`] notes. A body with more of them
/// ([`Inference::more_models`]) must not come here: those that are not noted stay.
///
/// ```
/// use bytes::Bytes;
/// use pointsman_core::request::{Parsers, read, splice_model};
///
/// let path = "/v1/completions";
/// let body = Bytes::from_static(br#"{ "model": "alias", "prompt": "Once upon a time" }"#);
/// let kind = Parsers::default().resolve(path).expect("a parser takes this path");
/// let inference = read(kind, path, b"application/json", &body).expect("the body is JSON");
/// let pieces = splice_model(&body, &inference, "llama");
/// assert_eq!(pieces.concat(), br#"{ "model": "llama", "prompt": "Once upon a time" }"#);
/// ```
pub fn splice_model(body: &Bytes, inference: &Inference, model: &str) -> SmallVec<[Bytes; 3]> {
    let Some(insert_at) = inference.insert_at else { return SmallVec::from_iter([body.clone()]) };
    let value = match inference.spelling {
        Spelling::Json => escapes::encode(model),
        Spelling::Verbatim => model.as_bytes().to_vec(),
        Spelling::Percent => percent::encode(model),
    };
    let mut joined = Joined::default();
    let mut done = 0;
    if inference.model_values.is_empty() {
        joined.piece(slice(body, 0, insert_at));
        joined.copy(b"\"model\":");
        joined.copy(&value);
        if !inference.empty_object {
            joined.copy(b",");
        }
        done = insert_at;
    } else {
        for range in &inference.model_values {
            joined.piece(slice(body, done, range.start));
            joined.copy(&value);
            done = range.end;
        }
    }
    joined.piece(slice(body, done, u32::MAX));
    joined.finish()
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

    use super::super::model_name::{MAX_MODEL_MEMBERS, MAX_MODEL_NAME};
    use super::super::parse::parse;
    use super::super::paths::ParserKind;
    use super::super::pieces_of_body::SMALL_PIECE;
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
    fn a_long_rest_of_the_body_is_shared_and_short_pieces_are_joined() {
        let long = "x".repeat(SMALL_PIECE);
        let body = Bytes::from(format!(r#"{{"model":"a","prompt":"{long}"}}"#));
        let inference = parse(ParserKind::OpenAi, "/v1/completions", &body).unwrap();
        let pieces = splice_model(&body, &inference, "m");
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0], r#"{"model":"m""#);
        assert_eq!(pieces.last().map(|piece| piece.as_ptr()), Some(body[12..].as_ptr()));
    }

    #[test]
    fn a_megabyte_of_models_is_noted_eight_times_and_no_more() {
        let members = vec![r#""model":"x""#; 100_000].join(",");
        let body = Bytes::from(format!(r#"{{"prompt":"x",{members}}}"#));
        let inference = parse(ParserKind::OpenAi, "/v1/completions", &body).unwrap();
        assert!(inference.more_models);
        assert_eq!(inference.model_values.len(), MAX_MODEL_MEMBERS);
        let pieces = splice_model(&body, &inference, &"y".repeat(MAX_MODEL_NAME));
        let size: usize = pieces.iter().map(Bytes::len).sum();
        assert!(size <= body.len() + MAX_MODEL_MEMBERS * (MAX_MODEL_NAME + 2), "{size}");
        assert!(pieces.len() <= 3, "{}", pieces.len());
    }

    /// `value` as JSON with every `model` at its top level set to `model`, or one more if there is none.
    fn by_tree(body: &str, model: &str) -> Value {
        let mut tree: Value = serde_json::from_str(body).unwrap();
        tree["model"] = Value::from(model);
        tree
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<String>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
            "[a-z]{5000,9000}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec(("[a-c]|model", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_new_body_is_what_a_rewritten_tree_says_and_grows_by_the_names_alone(
            members in proptest::collection::vec(("[a-c]{0,2}|model|m\u{f6}del|prompt", value()), 0..24),
            model in any::<String>(),
            blanks in "[ \n\t]{0,3}",
        ) {
            let list: Vec<_> = members
                .iter()
                .chain([&("prompt".to_owned(), Value::from("p"))])
                .map(|(name, value)| format!("{}{blanks}:{value}", Value::from(name.as_str())))
                .collect();
            let body = Bytes::from(format!("{{{blanks}{}}}{blanks}", list.join(&format!("{blanks},"))));
            let inference = parse(ParserKind::OpenAi, "/v1/completions", &body).unwrap();
            let models = members.iter().filter(|(name, _)| name == "model").count();
            prop_assert_eq!(inference.more_models, models > MAX_MODEL_MEMBERS);
            let pieces = splice_model(&body, &inference, &model);
            let new = pieces.concat();
            let most = body.len() + MAX_MODEL_MEMBERS.min(models.max(1)) * (escapes::encode(&model).len() + 9);
            prop_assert!(new.len() <= most, "{} from {}", new.len(), body.len());
            prop_assert!(pieces.len() <= 2 * MAX_MODEL_MEMBERS + 1);
            if !inference.more_models {
                let text = std::str::from_utf8(&body).unwrap();
                let new: Value = serde_json::from_slice(&new).unwrap();
                prop_assert_eq!(new, by_tree(text, &model));
            }
        }
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
