use std::collections::BTreeMap;

use proptest::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    block_size: u16,
    threshold: f64,
    enabled: bool,
    name: String,
    mode: Mode,
    limit: Option<u64>,
    delta: i32,
    rules: Vec<Rule>,
    labels: BTreeMap<String, String>,
    inner: Rule,
    window: Window,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            block_size: 16,
            threshold: 0.5,
            enabled: true,
            name: "x".into(),
            mode: Mode::Fast,
            limit: None,
            delta: -1,
            rules: vec![],
            labels: BTreeMap::new(),
            inner: Rule::default(),
            window: Window(1),
        }
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    max_tokens: u32,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Exact,
}

#[derive(Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(try_from = "u64")]
struct Window(u64);

impl TryFrom<u64> for Window {
    type Error = String;

    fn try_from(value: u64) -> Result<Self, String> {
        if value == 0 { Err("got 0, expected at least 1".to_owned()) } else { Ok(Self(value)) }
    }
}

fn read(value: &Value) -> Params {
    let mut notes = Vec::new();
    let params = decode(Some(value), &mut notes).unwrap();
    assert_eq!(notes, [""; 0]);
    params
}

fn fault(value: &Value) -> (String, String) {
    let error = decode::<Params>(Some(value), &mut Vec::new()).unwrap_err();
    (error.path, error.message)
}

#[test]
fn nothing_and_null_leave_the_defaults() {
    assert_eq!(decode::<Params>(None, &mut Vec::new()), Ok(Params::default()));
    assert_eq!(read(&Value::Null), Params::default());
    assert_eq!(read(&json!({})), Params::default());
    let nulls = json!({"blockSize": null, "enabled": null, "rules": null, "mode": null, "inner": null});
    assert_eq!(read(&nulls), Params::default());
}

#[test]
fn keys_match_in_any_letter_case_at_any_depth() {
    let params = read(&json!({"BLOCKSIZE": 4, "Rules": [{"MaxTokens": 3}], "inner": {"maxtokens": 9}}));
    assert_eq!((params.block_size, params.inner.max_tokens), (4, 9));
    assert_eq!(params.rules, [Rule { max_tokens: 3 }]);
}

#[test]
fn the_exact_spelling_wins_over_another_letter_case() {
    assert_eq!(read(&json!({"blockSize": 4, "BLOCKSIZE": 5, "blocksize": 6})).block_size, 4);
}

#[test]
fn keys_of_a_free_mapping_keep_their_letter_case() {
    let params = read(&json!({"labels": {"A": "1", "a": "2"}}));
    assert_eq!(params.labels.len(), 2);
}

#[test]
fn an_unknown_parameter_is_named_with_its_path_and_the_nearest_name() {
    let (path, message) = fault(&json!({"rules": [{}, {"maxToken": 3}]}));
    assert_eq!(path, "rules[1].maxToken");
    assert_eq!(message, "unknown parameter; did you mean `maxTokens`?");
}

#[test]
fn all_unknown_parameters_are_named_at_once() {
    let (path, message) = fault(&json!({"blokSize": 1, "inner": {"zzz": 1}, "name": 7.5}));
    assert_eq!(path, "blokSize");
    assert!(message.contains("did you mean `blockSize`?"), "{message}");
    assert!(message.contains("also inner.zzz: unknown parameter"), "{message}");
    assert!(message.contains("also name: got 7.5, expected a string"), "{message}");
}

#[test]
fn type_errors_quote_the_value_and_say_what_is_expected() {
    let cases = [
        (json!({"blockSize": "16.5"}), "blockSize", "got \"16.5\", expected a whole number of at least 0"),
        (json!({"blockSize": "0x10"}), "blockSize", "got \"0x10\", expected a whole number of at least 0"),
        (json!({"blockSize": 16.5}), "blockSize", "got 16.5, expected a whole number of at least 0"),
        (json!({"blockSize": -1}), "blockSize", "got -1, expected a whole number from 0 to 65535"),
        (json!({"delta": true}), "delta", "got true, expected a whole number"),
        (json!({"threshold": "high"}), "threshold", "got \"high\", expected a number"),
        (json!({"enabled": "maybe"}), "enabled", "got \"maybe\", expected true or false"),
        (json!({"name": 8.5}), "name", "got 8.5, expected a string (write it in quotes)"),
        (json!({"name": []}), "name", "got a list, expected a string"),
        (json!({"mode": "fats"}), "mode", "got \"fats\", which is no valid value; did you mean `fast`?"),
        (json!({"mode": 1}), "mode", "got 1, expected a string"),
        (json!({"rules": {}}), "rules", "got a mapping, expected a list"),
        (json!({"rules": [{}, 3]}), "rules[1]", "got 3, expected a mapping"),
        (json!({"labels": {"a": 1.5}}), "labels.a", "got 1.5, expected a string (write it in quotes)"),
        (
            json!({"inner": {"maxTokens": -4}}),
            "inner.maxTokens",
            "got -4, expected a whole number from 0 to 4294967295",
        ),
        (json!({"window": 0}), "window", "got 0, expected at least 1"),
        (json!({"limit": "x"}), "limit", "got \"x\", expected a whole number of at least 0"),
        (json!([1]), "", "got a list, expected a mapping"),
    ];
    for (value, path, message) in cases {
        assert_eq!(fault(&value), (path.to_owned(), message.to_owned()));
    }
}

#[test]
fn whole_numbers_may_be_written_with_a_point() {
    assert_eq!(read(&json!({"blockSize": 16.0, "threshold": 1, "limit": 3})).block_size, 16);
}

#[test]
fn words_for_booleans_count_as_in_old_yaml() {
    assert!(!read(&json!({"enabled": "off"})).enabled);
}

#[test]
fn values_in_quotes_or_without_are_taken_with_a_note_that_says_how_to_write_them() {
    let mut notes = Vec::new();
    let value = json!({
        "blockSize": "16", "threshold": " 0.5", "enabled": "False", "name": 8000, "limit": "3",
        "rules": [{"maxTokens": "7"}], "labels": {"a": 1, "b": true},
    });
    let params: Params = decode(Some(&value), &mut notes).unwrap();
    let expected = json!({
        "blockSize": 16, "threshold": 0.5, "enabled": false, "name": "8000", "limit": 3,
        "rules": [{"maxTokens": 7}], "labels": {"a": "1", "b": "true"},
    });
    assert_eq!(params, read(&expected));
    notes.sort();
    assert_eq!(
        notes,
        [
            "blockSize: is \"16\"; write 16, without quotes",
            "enabled: is \"False\"; write false, without quotes",
            "labels.a: is 1; write \"1\", in quotes",
            "labels.b: is true; write \"true\", in quotes",
            "limit: is \"3\"; write 3, without quotes",
            "name: is 8000; write \"8000\", in quotes",
            "rules[0].maxTokens: is \"7\"; write 7, without quotes",
            "threshold: is \" 0.5\"; write 0.5, without quotes",
        ]
    );
}

#[test]
fn an_empty_string_leaves_the_default_whatever_the_parameter_is() {
    let empty = json!({"blockSize": "", "threshold": "", "enabled": "", "name": "", "mode": "", "limit": "", "inner": {"maxTokens": ""}});
    assert_eq!(read(&empty), Params::default());
}

#[test]
fn a_missing_required_field_is_named() {
    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Required {
        #[allow(dead_code, reason = "only decoded")]
        path: String,
    }
    let error = decode::<Required>(Some(&json!({})), &mut Vec::new()).unwrap_err();
    assert_eq!(error.message, "`path` is required");
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,6}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("blockSize"),
        Just("RULES"),
        Just("inner"),
        Just("maxTokens"),
        Just("mode"),
        Just("labels"),
        Just("é"),
    ];
    leaf.prop_recursive(3, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_upsets_the_reader_and_every_fault_says_something(value in values()) {
        if let Err(error) = decode::<Params>(Some(&value), &mut Vec::new()) {
            prop_assert!(!error.message.is_empty());
        }
    }
}
