//! The values that templates get.

use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};

use crate::json::Json;

/// A dictionary whose keys are texts, in their order.
#[derive(Debug, Default)]
pub(crate) struct Dict(IndexMap<Arc<str>, Value>);

impl Dict {
    /// Makes a dictionary of these entries.
    pub(crate) fn new(entries: IndexMap<Arc<str>, Value>) -> Self {
        Self(entries)
    }

    /// Sets a key. A key that exists keeps its place.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        match self.0.get_mut(key) {
            Some(old) => *old = value,
            None => {
                self.0.insert(Arc::from(key), value);
            }
        }
    }
}

impl Object for Dict {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_str()?).cloned()
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.0.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.keys().map(|key| Value::from(Arc::clone(key))).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.0.len())
    }

    /// The methods are those of Python's dictionaries, whatever the names of the keys.
    fn call_method(
        self: &Arc<Self>,
        _state: &mut minijinja::State<'_, '_>,
        _method: &str,
        _args: &[Value],
    ) -> Result<Value, minijinja::Error> {
        Err(minijinja::Error::from(minijinja::ErrorKind::UnknownMethod))
    }
}

/// The template value of a JSON value. Texts are shared and not copied.
pub(crate) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Int(number) => i64::try_from(*number).map_or_else(|_| Value::from(*number), Value::from),
        Json::Float(number) => Value::from(*number),
        Json::Text(text) => Value::from(Arc::clone(text)),
        Json::List(items) => Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Json::Map(map) => {
            let entries = map.iter().map(|(key, value)| (Arc::clone(key), from_json(value)));
            Value::from_object(Dict(entries.collect()))
        }
    }
}
