//! Forms of the type `application/x-www-form-urlencoded`: the fields `model` and `stream` are read.

use super::percent;
use super::types::{Api, Inference, JsonStr, Spelling};

/// Longest name of a field that is looked at, in bytes as written: each byte of `stream` may be an escape.
const MAX_FIELD: usize = 3 * b"stream".len();

/// Reads the fields. A form that names no model can't be rewritten.
pub(super) fn read(body: &[u8]) -> Inference {
    if u32::try_from(body.len()).is_err() {
        return Inference::opaque();
    }
    let mut inference = Inference { api: Api::Other, spelling: Spelling::Percent, ..Inference::opaque() };
    let mut at = 0;
    while at <= body.len() {
        let rest = body.get(at..).unwrap_or_default();
        let end = memchr::memchr(b'&', rest).unwrap_or(rest.len());
        let pair = rest.get(..end).unwrap_or_default();
        if let Some(equals) = memchr::memchr(b'=', pair.get(..=MAX_FIELD).unwrap_or(pair)) {
            let (name, value) = pair.split_at(equals);
            let value = value.get(1..).unwrap_or_default();
            match percent::decode(name).as_ref() {
                b"model" => {
                    let (start, end) = ((at + equals + 1) as u32, (at + end) as u32);
                    inference.note_model(start..end);
                    if start < end {
                        inference.model = Some(JsonStr { start, end, escaped: false });
                    }
                }
                b"stream" => inference.stream = value.eq_ignore_ascii_case(b"true") || value == b"1",
                _ => {}
            }
        }
        at += end + 1;
    }
    inference.insert_at = inference.model.is_some().then_some(0);
    inference
}

/// Reads the beginning of a form: all its fields but the last, whose end may be missing.
pub(super) fn read_beginning(body: &[u8]) -> Inference {
    read(body.get(..memchr::memrchr(b'&', body).unwrap_or(0)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::splice::splice_model;
    use super::*;

    fn model(body: &str) -> Option<String> {
        read(body.as_bytes()).model_name(body.as_bytes()).map(std::borrow::Cow::into_owned)
    }

    fn spliced(body: &str, name: &str) -> String {
        let pieces = splice_model(&Bytes::from(body.to_owned()), &read(body.as_bytes()), name);
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[test]
    fn the_field_model_is_read_decoded_and_replaced_in_the_spelling_of_the_form() {
        for (body, name, new) in [
            ("model=alias", "alias", "model=a%2Freal+one"),
            ("x=model&model=al%69as+1&y=2", "alias 1", "x=model&model=a%2Freal+one&y=2"),
            ("m%6fdel=alias", "alias", "m%6fdel=a%2Freal+one"),
            (
                "model=&model=alias&model=",
                "alias",
                "model=a%2Freal+one&model=a%2Freal+one&model=a%2Freal+one",
            ),
            ("model=a=b", "a=b", "model=a%2Freal+one"),
        ] {
            assert_eq!(model(body).as_deref(), Some(name), "{body}");
            assert_eq!(spliced(body, "a/real one"), new, "{body}");
        }
    }

    #[test]
    fn a_form_without_a_model_is_never_given_one() {
        for body in ["", "model", "model=", "x=1&models=2", "&&&", "x[model]=m"] {
            assert_eq!(model(body), None, "{body}");
            assert_eq!(spliced(body, "new"), body);
        }
    }

    #[test]
    fn of_a_beginning_the_last_field_does_not_count() {
        for (body, name) in
            [("model=alias&prompt=x", Some("alias")), ("prompt=x&model=ali", None), ("", None)]
        {
            let inference = read_beginning(body.as_bytes());
            assert_eq!(inference.model_name(body.as_bytes()).as_deref(), name, "{body}");
        }
    }

    proptest! {
        #[test]
        fn the_new_form_has_the_name_and_all_other_fields(
            fields in proptest::collection::vec(("model|stream|[a-z%+]{0,5}", "[a-z%+=]{0,12}"), 0..8),
            name in any::<String>(),
        ) {
            let body: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let body = body.join("&");
            let named = fields.iter().any(|(name, value)| name == "model" && !value.is_empty());
            let new = spliced(&body, &name);
            let expected: Vec<_> = fields.iter().map(|(field, value)| {
                let encoded = String::from_utf8(percent::encode(&name)).unwrap();
                if named && field == "model" { format!("model={encoded}") } else { format!("{field}={value}") }
            }).collect();
            prop_assert_eq!(new, expected.join("&"));
        }
    }
}
