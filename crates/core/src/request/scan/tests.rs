//! The scanner against `serde_json` on valid, damaged and arbitrary bytes.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

/// Passes over the whole of `bytes`.
fn check(bytes: &[u8]) -> Result<(), ScanError> {
    let mut cursor = Cursor::new(bytes)?;
    cursor.skip()?;
    cursor.finish()
}

fn fault(text: &str) -> String {
    check(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn faults_name_the_reason_and_the_byte() {
    for (text, expected) in [
        ("", "unexpected end at byte 0"),
        (" \n", "unexpected end at byte 2"),
        ("[1", "unexpected end at byte 2"),
        ("[1 2]", "expected a comma or a closing bracket at byte 3"),
        ("[1,]", "expected a value at byte 3"),
        ("[01]", "expected a comma or a closing bracket at byte 2"),
        ("[-]", "expected a digit at byte 2"),
        ("[1.]", "expected a digit at byte 3"),
        ("[1e+]", "expected a digit at byte 4"),
        ("{1:2}", "expected a member name in quotes at byte 1"),
        (r#"{"a",}"#, "expected a colon at byte 4"),
        (r#"{"a":1,}"#, "expected a member name in quotes at byte 7"),
        (r#"{"a":1]"#, "expected a comma or a closing brace at byte 6"),
        (r#"{"a":1"#, "unexpected end at byte 6"),
        (r#""a\x""#, "invalid escape at byte 3"),
        (r#""\u12g4""#, "invalid escape at byte 5"),
        ("\"a\nb\"", "unescaped control character at byte 2"),
        ("\"ab", "unexpected end at byte 3"),
        ("nul", "unexpected end at byte 3"),
        ("nulx", "expected a value at byte 3"),
        ("1 1", "unexpected data behind the value at byte 2"),
        ("'a'", "expected a value at byte 0"),
    ] {
        assert_eq!(fault(text), expected, "{text}");
    }
}

#[test]
fn nesting_is_accepted_up_to_the_bound_and_refused_beyond_it() {
    let nested = |open: &str, close: &str, levels: usize| open.repeat(levels) + "1" + &close.repeat(levels);
    assert_eq!(check(nested("[", "]", 10_000).as_bytes()), Ok(()));
    assert_eq!(check(nested("{\"a\":", "}", 10_000).as_bytes()), Ok(()));
    assert_eq!(check(nested("[{\"a\":", "}]", 5_000).as_bytes()), Ok(()));
    assert_eq!(fault(&nested("[", "]", 10_001)), "exceeded max depth at byte 10000");
    assert_eq!(fault(&nested("{\"a\":", "}", 100_000)), "exceeded max depth at byte 50000");
    assert_eq!(fault(&"[".repeat(100_000)), "exceeded max depth at byte 10000");
}

#[test]
fn containers_of_both_kinds_close_in_order() {
    assert_eq!(fault("[{]}"), "expected a member name in quotes at byte 2");
    let deep = "[{\"a\":".repeat(100) + "1" + &"]}".repeat(100);
    assert_eq!(fault(&deep), "expected a comma or a closing brace at byte 601");
}

#[test]
fn bytes_that_are_no_utf8_and_lone_surrogates_are_let_through() {
    assert_eq!(check(b"\"a\xFF\xC0b\""), Ok(()));
    assert_eq!(check(br#"["\ud800","\udc00\ud800"]"#), Ok(()));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~]{0,200}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Bytes that look like JSON more often than arbitrary ones do.
fn json_like() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => proptest::sample::select(vec!["{", "}", "[", "]", ",", ":", "\"", "\\", " ", "\n"]),
        3 => proptest::sample::select(vec!["\"a\"", "\"\\u00e4\"", "1", "-1.5e+3", "0", "true", "false", "null", "\"a\":"]),
        1 => proptest::sample::select(vec!["\u{1}", "e", "-", ".", "u00", "ä", "tru"]),
    ];
    proptest::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes())
}

/// `serde_json` passes over values by the same grammar, and without looking at UTF-8 or surrogates.
fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

proptest! {
    #[test]
    fn valid_json_is_accepted_compact_and_pretty(value in json_value()) {
        prop_assert_eq!(check(&serde_json::to_vec(&value).unwrap()), Ok(()));
        prop_assert_eq!(check(&serde_json::to_vec_pretty(&value).unwrap()), Ok(()));
    }

    #[test]
    fn damaged_json_is_judged_as_serde_json_does(
        value in json_value(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = serde_json::to_vec(&value).unwrap();
        for (index, byte) in damage {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        prop_assert_eq!(check(&bytes).is_ok(), is_json(&bytes), "{:?}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn json_like_bytes_are_judged_as_serde_json_does(bytes in json_like()) {
        prop_assert_eq!(check(&bytes).is_ok(), is_json(&bytes), "{:?}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(check(&bytes).is_ok(), is_json(&bytes));
    }

    #[test]
    fn skipping_and_walking_pass_over_the_same_bytes(value in json_value()) {
        fn walk(cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
            match cursor.peek()? {
                Kind::Object => {
                    let mut object = cursor.open()?;
                    while cursor.member(&mut object)?.is_some() {
                        walk(cursor)?;
                    }
                }
                Kind::Array => {
                    let mut array = cursor.open()?;
                    while cursor.element(&mut array)? {
                        walk(cursor)?;
                    }
                }
                _ => {
                    cursor.skip()?;
                }
            }
            Ok(())
        }
        let bytes = serde_json::to_vec_pretty(&value).unwrap();
        let mut walked = Cursor::new(&bytes).unwrap();
        walk(&mut walked).unwrap();
        let mut skipped = Cursor::new(&bytes).unwrap();
        let range = skipped.skip().unwrap();
        prop_assert_eq!(walked.offset(), skipped.offset());
        prop_assert_eq!(range, 0..bytes.len() as u32);
        prop_assert_eq!(walked.depth, 0);
        prop_assert_eq!(skipped.depth, 0);
    }
}

#[test]
fn short_numbers_are_told_from_everything_else() {
    for (text, expected) in [
        ("1,.......", 1),
        ("0]       ", 1),
        ("1234567,", 7),
        ("12345678,", 0),
        ("01,     ", 0),
        ("1.5,    ", 0),
        ("1e5,    ", 0),
        ("12 ,    ", 0),
        ("12\u{7F}      ", 0),
        ("/,      ", 0),
        (":,      ", 0),
        ("1,", 0),
        ("", 0),
    ] {
        let mut cursor = Cursor::new(text.as_bytes()).unwrap();
        assert_eq!(cursor.skip_short_number(), expected > 0, "{text}");
        assert_eq!(cursor.offset(), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn arrays_of_token_ids_are_accepted_as_they_are_written(numbers in proptest::collection::vec(any::<i64>().prop_map(|number| number >> (number & 63)), 0..30), space in "[ \n]{0,2}") {
        let array = format!("[{space}{}{space}]", numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(&format!("{space},{space}")));
        let body = format!(r#"{{"token_ids":{array}}}"#);
        let parsed = super::super::vllm::parse(body.as_bytes());
        let tokens: Option<Vec<u32>> = numbers.iter().map(|number| u32::try_from(*number).ok()).collect();
        match tokens.filter(|tokens| !tokens.is_empty()) {
            None => prop_assert!(parsed.unwrap().unread.is_some()),
            Some(tokens) => {
                let piece = parsed.unwrap().prompt.pieces.pop();
                let Some(super::super::types::Piece::Tokens(range)) = piece else { panic!("{piece:?}") };
                prop_assert_eq!(super::super::types::token_ids(body.as_bytes(), range).collect::<Vec<_>>(), tokens);
            }
        }
    }
}
