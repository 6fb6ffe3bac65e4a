//! The text form of a series: `name` or `name{label=value,other="value"}`.

use super::MetricSpec;

impl MetricSpec {
    /// Reads the text form. Quotes are optional, blanks around parts are skipped, and only equality exists. Inside
    /// quotes any character but a quote may stand; an unquoted value ends at a quote, comma, brace or blank. An empty
    /// text disables the figure (`None`).
    ///
    /// # Errors
    ///
    /// Says what is wrong with the name, a label or the punctuation.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let (name, rest) = text.find('{').map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
        let name = name.trim_end();
        if !is_metric_name(name) {
            return Err(format!("`{name}` is not a metric name"));
        }
        let labels = rest.map(parse_labels).transpose()?.unwrap_or_default();
        Ok(Some(Self { name: name.to_owned(), labels }))
    }
}

/// Reads the text after the opening brace.
fn parse_labels(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut labels: Vec<(String, String)> = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(tail) = rest.strip_prefix('}') {
            return match tail.trim() {
                "" => Ok(labels),
                tail => Err(format!("unexpected `{tail}` after the closing brace")),
            };
        }
        let Some((name, after)) = rest.split_once('=') else {
            return Err(match rest {
                "" => "the closing brace is missing".to_owned(),
                rest => format!("expected `label=value` at `{rest}`"),
            });
        };
        let name = name.trim();
        if !is_label_name(name) {
            return Err(format!("`{name}` is not a label name"));
        }
        let (value, after) = parse_value(after.trim_start())?;
        match labels.iter().find(|(known, _)| known == name) {
            Some((_, other)) if other != value => {
                return Err(format!("label `{name}` is given twice, as `{other}` and `{value}`"));
            }
            Some(_) => {}
            None => labels.push((name.to_owned(), value.to_owned())),
        }
        rest = after.trim_start();
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start();
        } else if !rest.starts_with('}') {
            return Err(match rest {
                "" => "the closing brace is missing".to_owned(),
                rest => format!("expected `,` or `}}` at `{rest}`"),
            });
        }
    }
}

/// A label value and what follows it.
fn parse_value(text: &str) -> Result<(&str, &str), String> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted.split_once('"').ok_or_else(|| format!("the quote in `{text}` is not closed"));
    }
    let end = text.find(|c: char| matches!(c, '"' | ',' | '}') || c.is_whitespace()).unwrap_or(text.len());
    Ok(text.split_at(end))
}

fn is_metric_name(name: &str) -> bool {
    let start = |b: u8| b.is_ascii_alphabetic() || b == b'_' || b == b':';
    name.bytes().next().is_some_and(start) && name.bytes().all(|b| start(b) || b.is_ascii_digit())
}

fn is_label_name(name: &str) -> bool {
    is_metric_name(name) && !name.contains(':')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, name: &str, labels: &[(&str, &str)]) {
        let spec = MetricSpec::parse(text).unwrap().unwrap();
        let found: Vec<_> = spec.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!((spec.name.as_str(), found.as_slice()), (name, labels), "{text}");
    }

    #[test]
    fn quotes_and_blanks_are_optional() {
        check("vllm:queue", "vllm:queue", &[]);
        check("  a_b  ", "a_b", &[]);
        check("a{}", "a", &[]);
        check("a{x=1}", "a", &[("x", "1")]);
        check(" a { x = \"1\" , y=two } ", "a", &[("x", "1"), ("y", "two")]);
        check("a{x=1,}", "a", &[("x", "1")]);
        check("a{x=}", "a", &[("x", "")]);
        check("a{x=1,x=\"1\",y=2}", "a", &[("x", "1"), ("y", "2")]);
    }

    #[test]
    fn commas_and_braces_may_stand_inside_quotes() {
        check(r#"a{x="1,2}",y="="}"#, "a", &[("x", "1,2}"), ("y", "=")]);
        check(r#"q{a="b}"}"#, "q", &[("a", "b}")]);
        check(r#"q{a="b",a="b"}"#, "q", &[("a", "b")]);
    }

    #[test]
    fn an_empty_text_disables_the_figure() {
        assert_eq!(MetricSpec::parse(""), Ok(None));
        assert_eq!(MetricSpec::parse("  "), Ok(None));
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in [
            "1a",
            "a b",
            "{x=1}",
            "a{x",
            "a{x=1",
            "a{x=\"1}",
            "a{1=2}",
            "a{a:b=2}",
            "a{x=1}z",
            "a{x=1 y=2}",
            "a{x=1,x=2}",
        ] {
            assert!(MetricSpec::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in ".{0,60}") {
            let _ = MetricSpec::parse(&text);
        }

        #[test]
        fn what_is_written_is_read_back(name in "[a-z_:][a-z0-9_:]{0,9}", key in "[a-z_][a-z0-9_]{0,9}", value in "[^\"]{0,9}") {
            let text = format!("{name}{{{key}=\"{value}\"}}");
            let spec = MetricSpec::parse(&text).unwrap().unwrap();
            prop_assert_eq!(spec, MetricSpec::named(&name).with_label(&key, &value));
        }
    }
}
