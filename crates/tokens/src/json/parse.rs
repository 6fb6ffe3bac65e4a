//! Reads JSON. The depth and the number of values are bounded, and the memory is bounded by the size of the document.

use std::sync::Arc;

use super::{Json, JsonError, Map};

/// The most levels of lists and objects.
const MAX_DEPTH: usize = 100;
/// The most values of a document, on all levels together.
const MAX_VALUES: usize = 1 << 20;

impl Json {
    /// Reads a document.
    ///
    /// # Errors
    /// Returns [`JsonError`] if the document is not JSON, or has a value that cannot be represented exactly.
    pub fn parse(document: &[u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(document).map_err(|error| JsonError::Syntax(error.valid_up_to()))?;
        let mut reader = Reader { text, at: 0, left: MAX_VALUES };
        let value = reader.value(0)?;
        reader.space();
        if reader.at == text.len() { Ok(value) } else { Err(JsonError::Syntax(reader.at)) }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    left: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(JsonError::Syntax(self.at))
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > MAX_DEPTH {
            return Err(JsonError::Depth(self.at));
        }
        self.left = self.left.checked_sub(1).ok_or(JsonError::Values)?;
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Json, JsonError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
        {
            if rest.starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        let infinite = rest.starts_with("NaN") || rest.starts_with("Infinity");
        Err(if infinite { JsonError::Number(self.at) } else { JsonError::Syntax(self.at) })
    }

    fn list(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.space();
            if self.peek() == Some(b',') {
                self.at += 1;
                continue;
            }
            self.expect(b']')?;
            return Ok(Json::List(items));
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut map = Map::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Map(map));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(JsonError::Syntax(self.at));
            }
            let key = self.string()?;
            self.space();
            self.expect(b':')?;
            let value = self.value(depth + 1)?;
            map.insert(key, value);
            self.space();
            if self.peek() == Some(b',') {
                self.at += 1;
                continue;
            }
            self.expect(b'}')?;
            return Ok(Json::Map(map));
        }
    }

    /// Reads a text in quotes, of which the first quote comes next.
    fn string(&mut self) -> Result<Arc<str>, JsonError> {
        self.at += 1;
        let start = self.at;
        let mut owned: Option<String> = None;
        let mut copied = start;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let Some(plain) = rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20)) else {
                return Err(JsonError::Syntax(self.text.len()));
            };
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    let tail = self.text.get(copied..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(match owned {
                        None => Arc::from(tail),
                        Some(text) => Arc::from(text + tail),
                    });
                }
                Some(b'\\') => {
                    let text = owned.get_or_insert_default();
                    text.push_str(self.text.get(copied..self.at).unwrap_or_default());
                    let escaped = self.escape()?;
                    owned.get_or_insert_default().push(escaped);
                    copied = self.at;
                }
                _ => return Err(JsonError::Syntax(self.at)),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        self.at += 1;
        let kind = self.peek().ok_or(JsonError::Syntax(start))?;
        self.at += 1;
        Ok(match kind {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit(start)?;
                return match first {
                    0xd800..=0xdbff => {
                        if !self.text.get(self.at..).unwrap_or_default().starts_with("\\u") {
                            return Err(JsonError::Surrogate(start));
                        }
                        self.at += 2;
                        let second = self.unit(start)?;
                        if !(0xdc00..=0xdfff).contains(&second) {
                            return Err(JsonError::Surrogate(start));
                        }
                        let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                        char::from_u32(code).ok_or(JsonError::Surrogate(start))
                    }
                    other => char::from_u32(other).ok_or(JsonError::Surrogate(start)),
                };
            }
            _ => return Err(JsonError::Syntax(start)),
        })
    }

    fn unit(&mut self, start: usize) -> Result<u32, JsonError> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(JsonError::Syntax(start))?;
        let mut unit = 0;
        for digit in digits {
            unit = unit * 16 + char::from(*digit).to_digit(16).ok_or(JsonError::Syntax(start))?;
        }
        self.at += 4;
        Ok(unit)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.text.get(self.at..).unwrap_or_default().starts_with("Infinity") {
            return Err(JsonError::Number(start));
        }
        let zero = self.peek() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || (zero && digits > 1) {
            return Err(JsonError::Syntax(start));
        }
        let mut float = false;
        if self.peek() == Some(b'.') {
            self.at += 1;
            float = true;
            if self.digits() == 0 {
                return Err(JsonError::Syntax(start));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            float = true;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(JsonError::Syntax(start));
            }
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        if !float {
            return text.parse().map(Json::Int).map_err(|_| JsonError::Number(start));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Json::Float(number)),
            _ => Err(JsonError::Number(start)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Json, JsonError> {
        Json::parse(text.as_bytes())
    }

    #[test]
    fn keys_keep_their_order_and_the_last_of_two_values_counts() {
        let Ok(Json::Map(map)) = read(r#"{"b":1,"a":{},"b":2.0}"#) else { panic!() };
        let entries: Vec<(&str, &Json)> = map.iter().map(|(key, value)| (&**key, value)).collect();
        assert_eq!(entries, [("b", &Json::Float(2.0)), ("a", &Json::Map(Map::new()))]);
    }

    #[test]
    fn what_python_reads_and_is_not_represented_here_is_told_apart_from_what_is_no_json() {
        for text in ["NaN", "[-Infinity]", "1e999", "170141183460469231731687303715884105728"] {
            assert!(matches!(read(text), Err(JsonError::Number(_))), "{text}");
        }
        for text in [r#""\ud800""#, r#""\udc00x""#, r#""\ud800\n""#, r#""\ud800A""#] {
            assert!(matches!(read(text), Err(JsonError::Surrogate(_))), "{text}");
        }
        for text in ["", "[1,]", "01", "1.", "\"a\nb\"", "{\"a\" 1}", "[] x", "\"\\u12g4\"", "tru", "'a'"] {
            assert!(matches!(read(text), Err(JsonError::Syntax(_))), "{text}");
        }
        assert_eq!(read(r#""\ud83d\ude00\/\u00e9""#), Ok(Json::from_text("😀/é")));
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(read(&deep(100)).is_ok());
        assert!(matches!(read(&deep(1_000_000)), Err(JsonError::Depth(_))));
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert_eq!(read(&many), Err(JsonError::Values));
    }

    proptest! {
        #[test]
        fn what_another_reader_reads_is_read_alike(text in r#"[\[\]{}",:0-9a-z\\.eE+ -]{0,40}"#) {
            let other: Result<serde_json::Value, _> = serde_json::from_str(&text);
            match read(&text) {
                Ok(_) => prop_assert!(other.is_ok()),
                Err(JsonError::Syntax(_)) => prop_assert!(other.is_err()),
                Err(_) => {}
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Json::parse(&bytes);
        }
    }
}
