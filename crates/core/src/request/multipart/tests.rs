//! Forms: which fields are read, and that hostile ones cost no more than one look.

use bytes::Bytes;
use proptest::prelude::*;

use super::super::model_name::MAX_MODEL_MEMBERS;
use super::super::splice::splice_model;
use super::*;

const TYPE: &[u8] = b"multipart/form-data; boundary=XX";

fn part(disposition: &str, value: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
}

fn model(body: &str) -> Option<String> {
    let inference = read(TYPE, body.as_bytes()).unwrap();
    inference.model.map(|model| model.text(body.as_bytes()).into_owned())
}

fn spliced(body: &str, name: &str) -> String {
    let inference = read(TYPE, body.as_bytes()).unwrap();
    String::from_utf8(splice_model(&Bytes::from(body.to_owned()), &inference, name).concat()).unwrap()
}

#[test]
fn the_field_model_is_read_and_replaced_and_nothing_else_is_touched() {
    let file = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav\r\n\r\n\
                RIFF\r\n-XX\0name=\"model\"\r\n\r\n";
    for disposition in [
        "name=\"model\"",
        "name=model",
        "NAME=\"model\"",
        " name = \"model\"",
        "name*=utf-8''mod%65l",
        "\r\n name=\"model\"",
        "x=\"\\\"; name=no\"; name=model",
        "name*0=mo; name*1=del",
    ] {
        let body =
            format!("{}{}{file}--XX--\r\n", part("name=\"prompt\"", "model"), part(disposition, "alias"));
        assert_eq!(model(&body).as_deref(), Some("alias"), "{disposition}");
        assert_eq!(spliced(&body, "a/real \"model\""), body.replace("alias", "a/real \"model\""));
    }
}

#[test]
fn a_line_that_only_begins_like_the_boundary_belongs_to_its_part() {
    let file = "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF\r\n--XXx\r\n--XX-\r\nend\r\n";
    let body = format!("--XXpreamble\r\n{file}{}--XX--", part("name=\"model\"", "alias"));
    assert_eq!(model(&body).as_deref(), Some("alias"));
    assert_eq!(spliced(&body, "real"), body.replace("alias", "real"));
}

#[test]
fn of_several_fields_the_last_counts_and_all_are_replaced() {
    let body = format!("{}{}--XX--", part("name=\"model\"", "a"), part("name=\"model\"", "bb"));
    assert_eq!(model(&body).as_deref(), Some("bb"));
    assert_eq!(spliced(&body, "ccc").matches("ccc").count(), 2);
    // A server may read the first field or the last: neither may be an alias.
    for values in [["alias", ""], ["", "alias"]] {
        let fields = values.map(|value| part("name=\"model\"", value)).concat();
        let body = format!("{fields}--XX--");
        assert_eq!(model(&body).as_deref(), Some("alias"));
        assert_eq!(spliced(&body, "ccc").matches("ccc").count(), 2);
    }
}

#[test]
fn files_and_other_fields_are_no_model() {
    for disposition in [
        "name=\"model\"; filename=\"x\"",
        "name=\"model\"; filename*=utf-8''x",
        "name=\"models\"",
        "name=\"x; name=model\"",
        "filename=\"model\"",
    ] {
        let body = format!("{}--XX--", part(disposition, "alias"));
        assert_eq!(model(&body), None, "{disposition}");
        assert!(!read(TYPE, body.as_bytes()).unwrap().is_rewritable());
    }
}

#[test]
fn streams_are_asked_for_by_a_field() {
    for (value, expected) in [("true", true), ("True", true), ("1", true), ("false", false), ("", false)] {
        let body = format!("preamble\r\n{}--XX--", part("name=\"stream\"", value));
        assert_eq!(read(TYPE, body.as_bytes()).unwrap().stream, expected, "{value}");
    }
}

#[test]
fn boundaries_come_in_quotes_and_with_blanks() {
    let body =
        format!("{}--XX  --", "--a b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--a b--");
    for content_type in
        ["multipart/form-data; boundary=\"a b\"", "Multipart/Form-Data;charset=utf-8; BOUNDARY=\"a b\"; x=y"]
    {
        assert!(read(content_type.as_bytes(), body.as_bytes()).unwrap().model.is_some(), "{content_type}");
    }
}

#[test]
fn what_cannot_be_taken_apart_is_told() {
    let many = "--XX\r\n\r\n\r\n".repeat(2000);
    let long = format!("--XX\r\nA: {}\r\n\r\nx\r\n--XX--", "a".repeat(9000));
    for (content_type, body) in [
        (&b"multipart/form-data"[..], "--XX--"),
        (b"multipart/form-data; boundary=", "--XX--"),
        (TYPE, ""),
        (TYPE, "--YY--"),
        (TYPE, "--XX\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm"),
        (TYPE, "--XXtail\r\n\r\n\r\n"),
        (TYPE, many.as_str()),
        (TYPE, long.as_str()),
    ] {
        assert!(read(content_type, body.as_bytes()).is_err(), "{:?}", body.get(..60));
    }
}

proptest! {
    #[test]
    fn a_form_of_any_values_is_read_as_it_was_written(
        fields in proptest::collection::vec(("model|stream|prompt|[a-z]{1,5}", "[^X]{0,40}"), 0..8),
        name in "[a-zA-Z0-9/._-]{1,40}",
    ) {
        let parts: String = fields.iter().map(|(name, value)| part(&format!("name=\"{name}\""), value)).collect();
        let body = format!("{parts}--XX--\r\n");
        let last = fields.iter().rev().find(|(name, value)| name == "model" && !value.is_empty());
        let last = last.map(|(_, value)| value.clone());
        prop_assert_eq!(model(&body), last.clone());
        let renamed: String = fields.iter().map(|(field, value)| {
            let value = if field == "model" && last.is_some() { &name } else { value };
            part(&format!("name=\"{field}\""), value)
        }).collect();
        prop_assert_eq!(spliced(&body, &name), format!("{renamed}--XX--\r\n"));
    }

    #[test]
    fn any_bytes_are_looked_at_without_harm(bytes in proptest::collection::vec(prop_oneof![
        Just(b"--XX".to_vec()), Just(b"\r\n".to_vec()), Just(b"--".to_vec()),
        Just(b"Content-Disposition: form-data; name=\"model\"".to_vec()), any::<u8>().prop_map(|byte| vec![byte]),
    ], 0..40)) {
        let body = Bytes::from(bytes.concat());
        if let Ok(inference) = read(TYPE, &body) {
            let new: usize = splice_model(&body, &inference, "name").iter().map(Bytes::len).sum();
            prop_assert!(new <= body.len() + MAX_MODEL_MEMBERS * 4);
        }
    }
}
