use proptest::prelude::*;

use super::*;

fn tree(text: &str) -> Node {
    parse(text).unwrap_or_else(|error| panic!("line {}: {error}", error.line)).unwrap()
}

#[test]
fn keys_and_values_know_their_lines() {
    let node = tree("a: 1\nb:\n  - x\n  - c: y\n    d:\n      e: z\n");
    assert_eq!(node.line_of("a"), 1);
    assert_eq!(node.line_of("b"), 2);
    assert_eq!(node.line_of("b[0]"), 3);
    assert_eq!(node.line_of("b[1].c"), 4);
    assert_eq!(node.line_of("b[1].D"), 5, "letter case does not matter");
    assert_eq!(node.line_of("b[1].d.e"), 6);
    assert_eq!(node.line_of("b[1].d.nothing"), 5, "what does not exist lies where its parent lies");
}

#[test]
fn json_is_a_document_too() {
    let node = tree("{\n\t\"a\": [1,\n\t\t\"x\\u00e9\"],\n\t\"b\": null\n}\n");
    assert_eq!(node.to_json(), serde_json::json!({"a": [1, "xé"], "b": null}));
    assert_eq!(node.line_of("a[1]"), 3);
}

#[test]
fn yes_no_on_and_off_are_booleans_only_where_one_is_expected() {
    let node = tree("a: yes\nb: OFF\nc: true\nd: n\ne: yEs\n");
    assert_eq!(node.to_json(), serde_json::json!({"a": "yes", "b": "OFF", "c": true, "d": "n", "e": "yEs"}));
    let mut problems = Problems::new("x");
    let mut fields = Fields::of(&node, "", &mut problems).unwrap();
    let read = ["a", "b", "c", "d", "e"].map(|name| fields.boolean(name, &mut problems));
    assert_eq!(read, [Some(true), Some(false), Some(true), Some(false), None]);
    assert_eq!(fields.text("d", &mut problems), Some("n"));
    assert_eq!(problems.to_string(), "x:5: e: got \"yEs\", expected true or false");
}

#[test]
fn quoted_words_stay_text() {
    assert_eq!(tree("['yes', \"1\", 'null']").to_json(), serde_json::json!(["yes", "1", "null"]));
}

#[test]
fn numbers_with_leading_zeros_are_text_and_prefixed_ones_are_numbers() {
    assert_eq!(
        tree("[010, 0o10, 0x10, 1_000, 0, 0.5, -3, 1e3]").to_json(),
        serde_json::json!(["010", 8, 16, 1000, 0, 0.5, -3, 1000.0])
    );
}

#[test]
fn repeated_keys_are_kept_and_the_last_counts() {
    let node = tree("a: 1\na: 2\n");
    assert_eq!(node.as_map().map(<[_]>::len), Some(2));
    assert_eq!(node.to_json(), serde_json::json!({"a": 2}));
}

#[test]
fn a_tab_as_indentation_is_named_with_its_line() {
    let error = parse("plugins:\n\t- type: x\n").unwrap_err();
    assert_eq!((error.line, error.message.contains("tab")), (2, true), "{error}");
    let error = parse("plugins:\n- type: x\n  parameters:\n\t  a: 1\n").unwrap_err();
    assert_eq!((error.line, error.message.contains("tab")), (4, true), "{error}");
}

#[test]
fn blank_text_is_no_document() {
    for text in ["", "\n", "# nothing\n  # here\n", "\u{feff}"] {
        assert_eq!(parse(text), Ok(None), "{text:?}");
    }
}

#[test]
fn two_documents_are_one_too_many() {
    assert!(parse("a: 1\n---\nb: 2\n").is_err());
}

#[test]
fn aliases_work_but_bombs_do_not() {
    assert_eq!(tree("a: &x {k: 1}\nb: *x\n").to_json(), serde_json::json!({"a": {"k": 1}, "b": {"k": 1}}));
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let row = format!("*a{}, ", level - 1).repeat(10);
        let row = format!("a{level}: &a{level} [{}]\n", row.trim_end_matches(", "));
        bomb += &row;
    }
    assert!(parse(&bomb).is_err());
}

#[test]
fn deep_nesting_is_refused_not_survived_by_luck() {
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    assert!(parse(&deep).is_err());
    let deep: Vec<String> = (0..200).map(|level| " ".repeat(level) + "a:").collect();
    assert!(parse(&deep.join("\n")).is_err());
}

#[test]
fn an_oversized_text_is_refused() {
    let error = parse(&"# x\n".repeat(MAX_DOCUMENT_BYTES)).unwrap_err();
    assert!(error.message.contains("too many"));
}

#[test]
fn infinite_numbers_are_refused() {
    assert!(parse("a: .inf").is_err());
    assert!(parse("a: .nan").is_err());
}

#[test]
fn syntax_errors_name_the_line_once() {
    for (text, line) in [("a: [1, 2\nb: 3\n", 2), ("a: 1\nb\n", 2), ("a: 1\n  b: 2\n", 2), ("a: 'x\n", 1)] {
        let error = parse(text).unwrap_err();
        assert!(error.line >= line && error.line <= line + 1, "{text:?} gives line {}", error.line);
        assert!(!error.message.contains("line "), "{error}");
    }
}

#[test]
fn a_dotted_key_is_found_as_a_whole() {
    let node = tree("labels:\n  a.b/c: x\n  a: y\n");
    assert_eq!(node.line_of("labels.a.b/c"), 2);
    assert_eq!(node.line_of("labels.a"), 3);
}

proptest! {
    #[test]
    fn no_text_upsets_the_parser(text in "[-\\[\\]{}:,&*!|>'\"%@`#?~<=. \t\na-c0-2]{0,80}") {
        let _ = parse(&text);
    }

    #[test]
    fn no_path_upsets_the_search(path in "[a-c.\\[\\]0-9é]{0,20}") {
        let node = tree("a:\n  b: [1, {c: 2, '': 3, a.b: 4}]\n");
        prop_assert!(node.line_of(&path) <= 2);
    }
}

#[test]
fn a_second_document_is_named_as_such_and_marks_around_one_are_fine() {
    let fault = parse("a: 1\n---\nb: 2\n").unwrap_err();
    assert!(fault.message.contains("more than one document"), "{}", fault.message);
    assert!(parse("---\na: 1\n...\n").unwrap().is_some());
}
