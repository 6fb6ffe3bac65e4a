//! JSON in one spelling: values that are equal give equal bytes, whatever the blanks, the order of members and the
//! escapes in which a client writes them.
//!
//! The form is for hashing and is no JSON: strings stand decoded, with `"` and `\` escaped again so that no two values
//! look alike. Members are sorted by name, and of a name that comes twice the last counts, as for Go's decoder. Numbers
//! are doubles, written in their shortest form. One pass over the value, whose output is hardly longer than the value;
//! sorting moves the members of an object once, where they are not in order.

use memchr::{memchr, memchr2};
use smallvec::SmallVec;

use super::text;

/// Values nested deeper than this are taken as they lie: a depth of 64 is beyond any tool's schema.
const MAX_DEPTH: u32 = 64;
/// Plain digits up to this length are their own shortest form.
const PLAIN_DIGITS: usize = 15;
/// Whole numbers below this are written in digits.
const WHOLE: f64 = 1e15;

/// Appends the value `json`, which a scanner has found to be well formed, in its one spelling. Bytes that are no JSON
/// are taken as they lie.
pub(super) fn append(json: &[u8], out: &mut Vec<u8>) {
    let mut writer = Writer { json, at: 0, out, depth: 0, scratch: Vec::new() };
    if writer.value().is_none() {
        let rest = writer.json.get(writer.at..).unwrap_or_default();
        writer.out.extend_from_slice(rest);
    }
}

struct Writer<'j, 'o> {
    json: &'j [u8],
    at: usize,
    out: &'o mut Vec<u8>,
    depth: u32,
    /// Members on their way to another place.
    scratch: Vec<u8>,
}

/// A member of an object as it lies in the output.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    name_end: usize,
    end: usize,
}

impl Writer<'_, '_> {
    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.json.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    fn value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string(),
            b'{' | b'[' if self.depth >= MAX_DEPTH => self.as_it_lies(),
            b'{' => self.nested(Self::object),
            b'[' => self.nested(Self::array),
            _ => self.scalar(),
        }
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// A string from quote to quote.
    fn string(&mut self) -> Option<()> {
        let inside = self.json.get(self.at + 1..)?;
        let mut end = memchr2(b'"', b'\\', inside)?;
        if inside[end] == b'"' {
            self.out.extend_from_slice(self.json.get(self.at..=self.at + 1 + end)?);
            self.at += end + 2;
            return Some(());
        }
        while inside.get(end) == Some(&b'\\') {
            end += 2;
            end += memchr2(b'"', b'\\', inside.get(end..)?)?;
        }
        let out = &mut *self.out;
        out.push(b'"');
        text::decode(&inside[..end], true, |span| {
            escape_again(span, out);
            true
        });
        out.push(b'"');
        self.at += end + 2;
        Some(())
    }

    fn array(&mut self) -> Option<()> {
        self.at += 1;
        self.out.push(b'[');
        if self.peek()? == b']' {
            self.at += 1;
            self.out.push(b']');
            return Some(());
        }
        loop {
            self.value()?;
            let next = self.peek()?;
            self.at += 1;
            self.out.push(next);
            match next {
                b',' => {}
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    fn object(&mut self) -> Option<()> {
        self.at += 1;
        self.out.push(b'{');
        let mut members: SmallVec<[Member; 12]> = SmallVec::new();
        if self.peek()? != b'}' {
            loop {
                let start = self.out.len();
                if self.peek()? != b'"' {
                    return None;
                }
                self.string()?;
                let name_end = self.out.len();
                if self.peek()? != b':' {
                    return None;
                }
                self.at += 1;
                self.out.push(b':');
                self.value()?;
                self.out.push(b',');
                members.push(Member { start, name_end, end: self.out.len() });
                match self.peek()? {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return None,
                }
            }
            self.sort(&mut members);
            // The comma behind the last one.
            self.out.pop();
        }
        self.at += 1;
        self.out.push(b'}');
        Some(())
    }

    /// Puts members in the order of their names, the last of each name alone.
    fn sort(&mut self, members: &mut [Member]) {
        let out = &mut *self.out;
        let in_order = members.windows(2).all(|pair| {
            let [a, b] = pair else { return true };
            out[a.start..a.name_end] < out[b.start..b.name_end]
        });
        let Some(first) = members.first().map(|member| member.start) else { return };
        if in_order {
            return;
        }
        // The sort is stable: of equal names the last one in the text stays last.
        members.sort_by(|a, b| out[a.start..a.name_end].cmp(&out[b.start..b.name_end]));
        self.scratch.clear();
        for (at, member) in members.iter().enumerate() {
            let next = members.get(at + 1);
            let repeated =
                next.is_some_and(|next| out[next.start..next.name_end] == out[member.start..member.name_end]);
            if !repeated {
                self.scratch.extend_from_slice(&out[member.start..member.end]);
            }
        }
        out.truncate(first);
        out.extend_from_slice(&self.scratch);
    }

    /// A number or a literal.
    fn scalar(&mut self) -> Option<()> {
        let rest = self.json.get(self.at..)?;
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\t' | b'\r'))
            .unwrap_or(rest.len());
        let token = rest.get(..length).filter(|token| !token.is_empty())?;
        let digits = token.strip_prefix(b"-").unwrap_or(token);
        let is_plain =
            digits.iter().all(u8::is_ascii_digit) && digits.len() <= PLAIN_DIGITS && token != b"-0";
        let number = std::str::from_utf8(token).ok().and_then(|text| text.parse::<f64>().ok());
        match number.filter(|number| !is_plain && number.is_finite()) {
            // Zero has one spelling, too.
            Some(number) if number.fract() == 0.0 && number.abs() < WHOLE => {
                self.out.extend_from_slice(format!("{}", number + 0.0).as_bytes());
            }
            Some(number) => self.out.extend_from_slice(format!("{number:e}").as_bytes()),
            None => self.out.extend_from_slice(token),
        }
        self.at += length;
        Some(())
    }

    /// A value that is nested too deeply, without a look inside.
    fn as_it_lies(&mut self) -> Option<()> {
        let start = self.at;
        let mut open = 0_u32;
        loop {
            match *self.json.get(self.at)? {
                b'"' => {
                    let inside = self.json.get(self.at + 1..)?;
                    let mut end = memchr2(b'"', b'\\', inside)?;
                    while inside.get(end) == Some(&b'\\') {
                        end += 2;
                        end += memchr2(b'"', b'\\', inside.get(end..)?)?;
                    }
                    self.at += end + 1;
                }
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.checked_sub(1)?,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                break;
            }
        }
        self.out.extend_from_slice(self.json.get(start..self.at)?);
        Some(())
    }
}

/// Decoded text with `"` and `\` escaped.
fn escape_again(mut span: &[u8], out: &mut Vec<u8>) {
    if memchr(b'"', span).is_none() && memchr(b'\\', span).is_none() {
        out.extend_from_slice(span);
        return;
    }
    while let Some(at) = memchr2(b'"', b'\\', span) {
        out.extend_from_slice(&span[..at]);
        out.extend_from_slice(&[b'\\', span[at]]);
        span = &span[at + 1..];
    }
    out.extend_from_slice(span);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn canonical(json: &str) -> String {
        let mut out = Vec::new();
        append(json.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn equal_values_have_one_spelling() {
        for spellings in [
            &[r#"{"a":1,"b":[true,null]}"#, " {\n\t\"b\" : [ true , null ] , \"a\" : 1 } "][..],
            &[r#"{"name":"f","type":"object"}"#, r#"{"t\u0079pe":"object","n\u0061me":"f"}"#],
            &[r#""a/b\n\u00e9""#, "\"a\\/b\\u000a\\u00E9\"", r#""a/b\n\u00E9""#],
            &["1", "1.0", "1e0", "10e-1"],
            &["0", "-0", "0.0", "-0.0"],
            &[r#"{"a":1,"a":2}"#, r#"{"a":2}"#],
            &["[]", "[ ]"],
            &["{}", "{ \n}"],
        ] {
            let first = canonical(spellings[0]);
            for spelling in spellings {
                assert_eq!(canonical(spelling), first, "{spelling}");
            }
        }
    }

    #[test]
    fn different_values_have_different_spellings() {
        let values = [
            "1",
            "\"1\"",
            "[1]",
            "[[1]]",
            "[1,1]",
            "{\"1\":1}",
            "{}",
            "[]",
            "\"\"",
            "null",
            "\"null\"",
            "true",
            r#"{"a":{"b":1}}"#,
            r#"{"a":{},"b":1}"#,
            r#"["a","b"]"#,
            r#"["a\",\"b"]"#,
            r#"["b","a"]"#,
            "1.5",
            "15",
        ];
        let all: std::collections::BTreeSet<_> = values.iter().map(|value| canonical(value)).collect();
        assert_eq!(all.len(), values.len());
    }

    #[test]
    fn what_is_nested_deeply_or_is_no_json_is_taken_as_it_lies() {
        let deep = format!("{}\"]\"{}", "[ ".repeat(200), " ]".repeat(200));
        let out = canonical(&deep);
        assert!(out.contains("[ [ [") && out.ends_with("]]]"), "{out}");
        for broken in ["{", "[1", "\"a", "{\"a\"", "{\"a\":", "{a:1}", "[1}", "", "]", "nul"] {
            assert!(canonical(broken).len() <= 3 * broken.len() + 1, "{broken}");
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i32>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |real| real.is_finite()).prop_map(Value::from),
            ".{0,12}".prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::btree_map(".{0,6}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The value with members in another order, blanks, and every character that may be one as an escape.
    fn spelt_otherwise(value: &Value) -> String {
        let string = |text: &str| {
            let units: Vec<_> = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
            format!("\"{}\"", units.concat())
        };
        match value {
            Value::String(text) => string(text),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().map(spelt_otherwise).collect();
                format!("[ {} ]", items.join(" ,\n"))
            }
            Value::Object(members) => {
                let members = members.iter().rev();
                let members: Vec<_> = members
                    .map(|(name, value)| format!("{}\t: {}", string(name), spelt_otherwise(value)))
                    .collect();
                format!("{{ {} }}", members.join(" , "))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn any_value_has_one_spelling_and_differs_from_others(value in json(), other in json()) {
            let plain = canonical(&value.to_string());
            prop_assert_eq!(&plain, &canonical(&spelt_otherwise(&value)));
            if value != other {
                prop_assert_ne!(&plain, &canonical(&other.to_string()));
            }
        }

        #[test]
        fn the_output_has_a_bound_whatever_the_bytes_are(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            append(&bytes, &mut out);
            prop_assert!(out.len() <= 25 * bytes.len() + 1);
        }
    }
}
