//! Plugin parameters, read the way Go's JSON package reads them, but with errors that help.
//!
//! Keys match in any letter case (the exact spelling wins over others), and `null` leaves the default. Unknown fields are
//! refused, and all of them are named at once with the nearest valid spelling. A fault carries the path of the parameter
//! below `parameters`.
//!
//! Templates write some values otherwise than Go reads them. An empty string leaves the default. A number or a boolean in
//! quotes, and a whole number without quotes where a text belongs, are taken with a note.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::{Map, Number, Value};

use super::BuildError;
use crate::document::hint;
use crate::document::scalar::yaml_bool;

/// Decodes `value` into a plugin's parameter struct (`#[serde(default, deny_unknown_fields, rename_all =
/// "camelCase")]`). What should be written otherwise goes to `notes`.
pub(super) fn decode<P: DeserializeOwned + Default>(
    value: Option<&Value>,
    notes: &mut Vec<String>,
) -> Result<P, BuildError> {
    let value = match value {
        None | Some(Value::Null) => return Ok(P::default()),
        Some(value @ Value::Object(_)) => value,
        Some(other) => return Err(BuildError::new(format!("got {}, expected a mapping", Shown(other)))),
    };
    let found = Found::default();
    let decoded = P::deserialize(Reader { value, path: &Path::Root, found: &found });
    notes.append(&mut found.notes.into_inner());
    let unknown = found.unknown.into_inner();
    match (unknown.split_first(), decoded) {
        (None, Ok(params)) => Ok(params),
        (None, Err(fault)) => Err(BuildError::at(fault.path.unwrap_or_default(), fault.message)),
        (Some((first, rest)), decoded) => {
            let mut message = first.1.clone();
            for (path, text) in rest {
                message.extend(["; also ", path, ": ", text]);
            }
            if let Err(fault) = decoded {
                message.extend(["; also ", &fault.path.unwrap_or_default(), ": ", &fault.message]);
            }
            Err(BuildError::at(first.0.clone(), message))
        }
    }
}

/// A value as an error text quotes it.
struct Shown<'v>(&'v Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Array(_) => f.write_str("a list"),
            Value::Object(_) => f.write_str("a mapping"),
            Value::String(text) if text.chars().count() > 60 => {
                let start: String = text.chars().take(60).collect();
                write!(f, "{}…", Value::String(start))
            }
            scalar => write!(f, "{scalar}"),
        }
    }
}

/// Where the reader is, as a list from the leaf to the root.
enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Element(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, name) => f.write_str(name),
            Self::Field(parent, name) => write!(f, "{parent}.{name}"),
            Self::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A fault; the innermost reader that sees it adds the path.
#[derive(Debug)]
struct Fault {
    path: Option<String>,
    message: String,
}

impl Fault {
    fn within(mut self, path: &Path<'_>) -> Self {
        self.path.get_or_insert_with(|| path.to_string());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: None, message: message.to_string() }
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("got {}, expected {expected}", quoted(got)))
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("got {}, expected {expected}", quoted(got)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(format_args!("got \"{variant}\", which is no valid value{}", hint(variant, expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("`{field}` is required"))
    }
}

fn quoted(got: Unexpected<'_>) -> String {
    match got {
        Unexpected::Str(text) => Shown(&Value::String(text.to_owned())).to_string(),
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

/// What a reader came across.
#[derive(Default)]
struct Found {
    /// Paths of unknown parameters, each with what is said of it.
    unknown: RefCell<Vec<(String, String)>>,
    /// Values that should be written otherwise.
    notes: RefCell<Vec<String>>,
}

#[derive(Clone, Copy)]
struct Reader<'a, 'p> {
    value: &'a Value,
    path: &'p Path<'p>,
    found: &'p Found,
}

impl Reader<'_, '_> {
    /// Notes that the value was taken for `meant`.
    fn note(&self, meant: &dyn fmt::Display, quotes: &str) {
        let note = format!("{}: is {}; write {meant}, {quotes} quotes", self.path, Shown(self.value));
        self.found.notes.borrow_mut().push(note);
    }

    /// The number that stands here, be it in quotes.
    fn number(&self) -> Option<Number> {
        match self.value {
            Value::Number(number) => Some(number.clone()),
            Value::String(text) => {
                let number = serde_json::from_str(text.trim()).ok()?;
                self.note(&number, "without");
                Some(number)
            }
            _ => None,
        }
    }

    fn expected<T>(&self, what: &str) -> Result<T, Fault> {
        let message = format!("got {}, expected {what}", Shown(self.value));
        Err(Fault { path: Some(self.path.to_string()), message })
    }
}

/// The whole number that `number` stands for; `16.0` is one, `16.5` is none.
fn whole(number: &Number) -> Option<i128> {
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    integer.or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i128)
    })
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let integer = self.number().as_ref().and_then(whole);
            match integer.map(<$type>::try_from) {
                Some(Ok(integer)) => visitor.$visit(integer).map_err(|fault: Fault| fault.within(self.path)),
                None if <$type>::MIN == 0 => self.expected("a whole number of at least 0"),
                None => self.expected("a whole number"),
                Some(Err(_)) => self.expected(&format!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX)),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_, '_> {
    type Error = Fault;

    integers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let path = self.path;
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (_, _, number) => visitor.visit_f64(number.unwrap_or_default()),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Array(list) => visitor.visit_seq(Elements { list, next: 0, reader: self }),
            Value::Object(map) => visitor.visit_map(Entries::all(map, self)),
        }
        .map_err(|fault| fault.within(path))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(*value).map_err(|fault: Fault| fault.within(self.path)),
            // Words that the reference's YAML reader takes for booleans arrive as text.
            Value::String(text) if let Some(value) = yaml_bool(text) => {
                visitor.visit_bool(value).map_err(|fault: Fault| fault.within(self.path))
            }
            Value::String(text) if let Ok(value) = text.trim().to_ascii_lowercase().parse::<bool>() => {
                self.note(&value, "without");
                visitor.visit_bool(value).map_err(|fault: Fault| fault.within(self.path))
            }
            _ => self.expected("true or false"),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.number().and_then(|number| number.as_f64()) {
            Some(number) => visitor.visit_f64(number).map_err(|fault: Fault| fault.within(self.path)),
            None => self.expected("a number"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(text) => visitor.visit_str(text).map_err(|fault: Fault| fault.within(self.path)),
            Value::Number(number) if number.is_i64() || number.is_u64() => {
                let text = number.to_string();
                self.note(&format_args!("{text:?}"), "in");
                visitor.visit_string(text).map_err(|fault: Fault| fault.within(self.path))
            }
            Value::Bool(value) => {
                let text = value.to_string();
                self.note(&format_args!("{text:?}"), "in");
                visitor.visit_string(text).map_err(|fault: Fault| fault.within(self.path))
            }
            Value::Number(_) => self.expected("a string (write it in quotes)"),
            _ => self.expected("a string"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self).map_err(|fault: Fault| fault.within(self.path))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Array(_) => self.deserialize_any(visitor),
            _ => self.expected("a list"),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Object(_) => self.deserialize_any(visitor),
            _ => self.expected("a mapping"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let entries = match self.value {
            Value::Object(map) => Entries::of_struct(map, fields, self),
            // In a list: a struct with nothing set.
            Value::Null => Entries { left: Vec::new(), reader: self },
            _ => return self.expected("a mapping"),
        };
        visitor.visit_map(entries).map_err(|fault| fault.within(self.path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(_) => visitor.visit_enum(self).map_err(|fault| fault.within(self.path)),
            _ => self.expected("a string"),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct identifier ignored_any
    }
}

/// Parameters that say something with an empty string. All others mean the default by it, as templates write it for what
/// they do not set.
const MEANT_EMPTY: &[&str] = &["label", "topicFilter"];

/// Elements of a list.
struct Elements<'a, 'p> {
    list: &'a [Value],
    next: usize,
    reader: Reader<'a, 'p>,
}

impl<'de> SeqAccess<'de> for Elements<'_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(value) = self.list.get(self.next) else { return Ok(None) };
        let path = Path::Element(self.reader.path, self.next);
        self.next += 1;
        seed.deserialize(Reader { value, path: &path, found: self.reader.found })
            .map(Some)
            .map_err(|fault| fault.within(&path))
    }
}

/// Entries of a mapping, the last first.
struct Entries<'a, 'p> {
    left: Vec<(&'a str, &'a Value)>,
    reader: Reader<'a, 'p>,
}

impl<'a, 'p> Entries<'a, 'p> {
    /// As they stand.
    fn all(map: &'a Map<String, Value>, reader: Reader<'a, 'p>) -> Self {
        let left = map.iter().map(|(key, value)| (key.as_str(), value)).rev().collect();
        Self { left, reader }
    }

    /// Under the names of `fields`, without those that are `null`; what fits no field is noted.
    fn of_struct(
        map: &'a Map<String, Value>,
        fields: &'static [&'static str],
        reader: Reader<'a, 'p>,
    ) -> Self {
        let mut left: Vec<(&'static str, &'a Value)> = Vec::new();
        for (key, value) in map {
            let exact = fields.iter().find(|field| **field == key.as_str());
            let Some(field) = exact.or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(key)))
            else {
                let path = Path::Field(reader.path, key).to_string();
                reader
                    .found
                    .unknown
                    .borrow_mut()
                    .push((path, format!("unknown parameter{}", hint(key, fields))));
                continue;
            };
            let unset = value.is_null() || (!MEANT_EMPTY.contains(field) && value.as_str() == Some(""));
            if unset || (exact.is_none() && map.contains_key(*field)) {
                continue;
            }
            left.retain(|(known, _)| known != field);
            left.push((field, value));
        }
        left.reverse();
        Self { left, reader }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((key, _)) = self.left.last() else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = (*key).into_deserializer();
        seed.deserialize(key).map(Some).map_err(|fault| fault.within(self.reader.path))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let Some((key, value)) = self.left.pop() else { return Err(de::Error::custom("no value left")) };
        let path = Path::Field(self.reader.path, key);
        seed.deserialize(Reader { value, path: &path, found: self.reader.found })
            .map_err(|fault| fault.within(&path))
    }
}

impl<'de> EnumAccess<'de> for Reader<'_, '_> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.value.as_str().unwrap_or_default().into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

/// Only variants without content are named by a string.
impl<'de> VariantAccess<'de> for Reader<'_, '_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Fault> {
        self.expected("a mapping")
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Fault> {
        self.expected("a mapping")
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Fault> {
        self.expected("a mapping")
    }
}

#[cfg(test)]
#[path = "params_tests.rs"]
mod tests;
