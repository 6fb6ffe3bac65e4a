//! Labels and label selectors of Kubernetes: what is well-formed.

/// True if `key` is a label key: a name, behind a DNS subdomain and a slash if it has a prefix.
pub fn is_label_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_is_valid = prefix.is_none_or(|prefix| {
        let label = |label: &str| {
            is_framed(label, |byte| byte == b'-') && !label.bytes().any(|byte| byte.is_ascii_uppercase())
        };
        prefix.len() <= 253 && prefix.split('.').all(label)
    });
    prefix_is_valid && !name.is_empty() && is_name(name)
}

/// True if `value` is a label value; it may be empty.
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name(value)
}

fn is_name(text: &str) -> bool {
    text.len() <= 63 && is_framed(text, |byte| matches!(byte, b'-' | b'_' | b'.'))
}

/// True if `text` is letters, digits and `inner` bytes, and begins and ends with a letter or digit.
fn is_framed(text: &str, inner: impl Fn(u8) -> bool) -> bool {
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.into_iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || inner(byte))
}

/// Checks a selector as command lines and queries have it, such as `app=vllm,tier in (a, b),!canary`. `Err` says what
/// is wrong and where.
pub fn check_selector(text: &str) -> Result<(), String> {
    terms(text)?.into_iter().try_for_each(|term| check_term(term.trim()))
}

/// A selector as command lines and queries have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelQuery(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Absent,
    Present,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

impl LabelQuery {
    /// Reads a selector; `Err` says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        check_selector(text)?;
        Ok(Self(terms(text)?.into_iter().map(|term| Requirement::read(term.trim())).collect()))
    }

    /// True if the labels, which `value` looks up, meet every requirement.
    pub fn matches<'l>(&self, value: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.0.iter().all(|requirement| requirement.test.holds(value(&requirement.key)))
    }
}

impl Requirement {
    /// Reads a term that was found good.
    fn read(term: &str) -> Self {
        let new = |key: &str, test| Self { key: key.trim().to_owned(), test };
        if let Some(absent) = term.strip_prefix('!') {
            return new(absent, Test::Absent);
        }
        if let Some((head, values)) = term.strip_suffix(')').and_then(|term| term.split_once('(')) {
            let mut words = head.split_whitespace();
            let (key, operator) = (words.next().unwrap_or_default(), words.next());
            let values = values.split(',').map(|value| value.trim().to_owned()).collect();
            return new(key, if operator == Some("notin") { Test::NotIn(values) } else { Test::In(values) });
        }
        for sign in ["!=", "==", "=", ">", "<"] {
            let Some((key, operand)) = term.split_once(sign) else { continue };
            let operand = operand.trim();
            let number = operand.parse().unwrap_or_default();
            return new(
                key,
                match sign {
                    "!=" => Test::NotIn(vec![operand.to_owned()]),
                    ">" => Test::Above(number),
                    "<" => Test::Below(number),
                    _ => Test::In(vec![operand.to_owned()]),
                },
            );
        }
        new(term, Test::Present)
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let listed = |values: &[String]| value.is_some_and(|value| values.iter().any(|known| known == value));
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Absent => value.is_none(),
            Self::Present => value.is_some(),
            Self::In(values) => listed(values),
            Self::NotIn(values) => !listed(values),
            Self::Above(least) => number().is_some_and(|number| number > *least),
            Self::Below(most) => number().is_some_and(|number| number < *most),
        }
    }
}

/// Splits at commas outside parentheses.
fn terms(text: &str) -> Result<Vec<&str>, String> {
    if text.trim().is_empty() {
        return Err("is empty, and would select every pod of the namespace".to_owned());
    }
    let (mut terms, mut start, mut open) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' if open => return Err("has a parenthesis within parentheses".to_owned()),
            b'(' => open = true,
            b')' if !open => return Err("closes a parenthesis that was not opened".to_owned()),
            b')' => open = false,
            b',' if !open => {
                terms.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err("has a parenthesis that is not closed".to_owned());
    }
    terms.extend(text.get(start..));
    Ok(terms)
}

fn check_term(term: &str) -> Result<(), String> {
    let key = |key: &str| {
        let key = key.trim();
        if is_label_key(key) { Ok(()) } else { Err(format!("{key:?} in {term:?} is no label key")) }
    };
    let value = |value: &str| {
        let value = value.trim();
        if is_label_value(value) { Ok(()) } else { Err(format!("{value:?} in {term:?} is no label value")) }
    };
    if let Some(absent) = term.strip_prefix('!') {
        return key(absent);
    }
    if let Some((head, values)) = term.strip_suffix(')').and_then(|term| term.split_once('(')) {
        let mut words = head.split_whitespace();
        let (name, operator) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if !matches!(operator, "in" | "notin") || words.next().is_some() {
            return Err(format!("{term:?}: expected `key in (a, b)` or `key notin (a, b)`"));
        }
        key(name)?;
        return values.split(',').try_for_each(value);
    }
    for (sign, is_number) in [("!=", false), ("==", false), ("=", false), (">", true), ("<", true)] {
        if let Some((name, operand)) = term.split_once(sign) {
            key(name)?;
            if is_number && operand.trim().parse::<i64>().is_err() {
                return Err(format!("{:?} in {term:?} is no whole number", operand.trim()));
            }
            return value(operand);
        }
    }
    key(term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_holds_or_not_for_labels() {
        let labels = [("app", "vllm"), ("tier", "b"), ("generation", "4")];
        let value = |key: &str| labels.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
        for (text, expected) in [
            ("app=vllm", true),
            ("app==vllm, tier in (a,b)", true),
            ("app!=vllm", false),
            ("other!=x", true),
            ("tier notin (a, c),!spot", true),
            ("app,generation>3,generation<9", true),
            ("generation>4", false),
            ("app>1", false),
            ("spot", false),
        ] {
            assert_eq!(LabelQuery::parse(text).unwrap().matches(value), expected, "{text}");
        }
        assert!(LabelQuery::parse("").is_err() && LabelQuery::parse("a in (").is_err());
    }

    #[test]
    fn every_form_of_a_selector_is_accepted() {
        for (text, count) in [
            ("app=vllm", 1),
            ("app==vllm, tier != canary", 2),
            ("a.example/b in (x,y, z),c notin (d)", 2),
            ("gpu,!spot", 2),
            ("generation>3,generation<9", 2),
            ("app=", 1),
        ] {
            assert_eq!((check_selector(text), terms(text).unwrap().len()), (Ok(()), count), "{text}");
        }
    }

    #[test]
    fn a_selector_that_the_api_would_refuse_says_which_part_is_wrong() {
        for (text, part) in [
            ("", "every pod"),
            (" ", "every pod"),
            ("app=vllm,", "\"\" in \"\" is no label key"),
            ("app=a b", "\"a b\""),
            ("-app=a", "\"-app\""),
            ("app in a", "\"app in a\""),
            ("app within (a)", "expected `key in"),
            ("app in (a", "not closed"),
            ("app in a)", "not opened"),
            ("size>big", "whole number"),
            ("Prefix.io/a=b", "no label key"),
        ] {
            let message = check_selector(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
