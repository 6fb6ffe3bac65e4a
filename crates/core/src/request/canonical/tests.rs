use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn canonical(value: &str) -> String {
    let mut out = Vec::new();
    Canonical::default().write(value.as_bytes(), |span| {
        out.extend_from_slice(span);
        true
    });
    String::from_utf8(out).unwrap()
}

#[test]
fn blanks_order_and_escapes_make_no_difference() {
    for (value, expected) in [
        (r#" [ 1 , { "b" : [ ] , "a" : { } } ] "#, r#"[1,{"a":{},"b":[]}]"#),
        (r#"{"b":{"d":1,"c":2},"a":null}"#, r#"{"a":null,"b":{"c":2,"d":1}}"#),
        (r#"{"\u0061b":1,"a":2}"#, r#"{"a":2,"ab":1}"#),
        (r#""\u00e9\/\ud83d\ude00 \u0022 \" \u005c \\""#, "\"é/😀 \\\" \\\" \\\\ \\\\\""),
        ("true", "true"),
        // Of several members with one name the last counts.
        (r#"{"a":1,"b":2,"\u0061":3}"#, r#"{"a":3,"b":2}"#),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        // A name that is the beginning of another comes first, whatever follows it.
        (r#"{"a!":1,"a":2}"#, r#"{"a":2,"a!":1}"#),
    ] {
        assert_eq!(canonical(value), expected, "{value}");
    }
}

#[test]
fn numbers_count_by_their_value() {
    for (numbers, expected) in [
        (&["1", "1.0", "1e0", "10E-1"][..], "1"),
        (&["-0", "0", "0.0", "-0.0e5"], "0"),
        (&["0.5", "5e-1", "0.50"], "5e-1"),
        (&["123456789012345", "1.23456789012345e14"], "123456789012345"),
        (&["1000000000000000", "1e15"], "1e15"),
        (&["9007199254740993", "9007199254740992"], "9.007199254740992e15"),
        (&["1e400"], "1e400"),
        (&["NaN"], "NaN"),
    ] {
        for number in numbers {
            assert_eq!(canonical(number), expected, "{number}");
        }
    }
}

#[test]
fn what_is_no_json_counts_as_it_lies_from_the_element_on() {
    for (value, expected) in [
        ("", ""),
        (" x ", " x "),
        (r#""a"}, {"b""#, r#""a"}, {"b""#),
        (r#"{ "b": 1, "a": }"#, r#"{ "b": 1, "a": }"#),
        (r#"[ {"b":1,"a":2} , {"b":1 ]"#, r#"[{"a":2,"b":1},{"b":1 ]"#),
        (r#"["a" 1]"#, r#"["a" 1]"#),
    ] {
        assert_eq!(canonical(value), expected, "{value}");
    }
}

#[test]
fn deep_objects_keep_the_order_of_their_members_and_no_depth_is_too_much() {
    let nested = |depth: usize| format!("{}1{}", r#"{"b":"#.repeat(depth), r#","a":2}"#.repeat(depth));
    let spelt = canonical(&nested(MAX_SORTED_DEPTH + 1));
    assert_eq!(spelt.matches(r#"{"a":2,"b":"#).count(), MAX_SORTED_DEPTH);
    assert_eq!(spelt.matches(r#"{"b":1,"a":2}"#).count(), 1);
    let brackets = format!("{}{}", "[".repeat(9_999), "]".repeat(9_999));
    assert_eq!(canonical(&brackets), brackets);
    let too_deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    assert_eq!(canonical(&too_deep).len(), too_deep.len());
}

#[test]
fn a_request_has_a_budget_behind_which_values_count_as_they_lie() {
    let item = format!(r#"{{ "b": "{}", "a": 1 }}"#, "x".repeat(BUDGET / 4));
    let list = format!("[{}]", vec![item.clone(); 6].join(","));
    let spelt = canonical(&list);
    assert!(spelt.starts_with(r#"[{"a":1,"b":"x"#) && spelt.ends_with(&format!("{item}]")));
    assert_eq!(spelt.matches(r#"{"a":1,"#).count(), 3);
    assert_eq!(spelt.matches(r#"{ "b":"#).count(), 3);
    let mut canonical = Canonical::default();
    let mut write = |value: &str| {
        let mut out = Vec::new();
        canonical.write(value.as_bytes(), |span| {
            out.extend_from_slice(span);
            true
        });
        out
    };
    (0..4).for_each(|_| drop(write(&item)));
    assert_eq!(write("[ 1, 2 ]"), b"[ 1, 2 ]");
}

#[test]
fn a_list_is_handed_on_element_by_element_until_there_is_enough() {
    let mut spans = Vec::new();
    Canonical::default().write(br#"[ {"b":1,"a":2}, 7, "never" ]"#, |span| {
        spans.push(String::from_utf8_lossy(span).into_owned());
        spans.len() < 3
    });
    assert_eq!(spans.concat(), r#"[{"a":2,"b":1},7,"#);
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |real| real.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// The value with blanks, its members from last to first, and every character of a string as an escape.
fn respelt(value: &Value) -> String {
    let text = |text: &str| {
        let units: Vec<String> = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"{}\"", units.concat())
    };
    match value {
        Value::Array(list) => {
            format!("[ {} ]", list.iter().map(respelt).collect::<Vec<_>>().join(" ,\n"))
        }
        Value::Object(members) => {
            let mut members: Vec<String> =
                members.iter().map(|(name, value)| format!("{}\t: {}", text(name), respelt(value))).collect();
            members.reverse();
            format!("{{{}}}", members.join(" , "))
        }
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn all_spellings_of_a_value_become_one_that_means_the_same(value in tree()) {
        let one = canonical(&value.to_string());
        prop_assert_eq!(&one, &canonical(&serde_json::to_string_pretty(&value).unwrap()));
        prop_assert_eq!(&one, &canonical(&respelt(&value)));
        prop_assert_eq!(&one, &canonical(&one));
    }

    #[test]
    fn any_bytes_are_taken(value in prop::collection::vec(prop::sample::select(b"{}[]\":,\\ u0a1.e-tn".to_vec()), 0..60)) {
        let mut length = 0;
        Canonical::default().write(&value, |span| {
            length += span.len();
            true
        });
        prop_assert!(length <= 4 * value.len() + 16);
    }
}

#[test]
fn the_order_of_members_does_not_change_what_a_value_is() {
    let tools = json!([{"type": "function", "function": {"name": "f", "strict": true, "parameters": {
        "type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "number"}}, "required": ["b"]}}}]);
    let spelt: Value = serde_json::from_str(&canonical(&tools.to_string())).unwrap();
    assert_eq!(spelt, tools);
}
