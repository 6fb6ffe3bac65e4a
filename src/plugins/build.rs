//! How a configured plugin comes to life: what it is given, and what it may ask for.

use std::any::TypeId;
use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::BuildError;
use crate::metrics::Metrics;
use crate::pool::AttributeKey;
use crate::prefix::{DEFAULT_PREFIX_MEMORY_BYTES, PrefixMemory};
use crate::scheduling::{Column, Decider, Filter};

/// Makes the JSON Schema of a plugin's parameters.
pub type ParametersSchema = fn(&mut SchemaGenerator) -> Schema;

/// Identity of a column: a type of data and the name of the plugin instance that produces it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnKey {
    /// Rust type of the cells.
    pub data: TypeId,
    /// Name of that type, for people.
    pub data_name: &'static str,
    /// Instance name of the producer.
    pub producer: String,
}

/// A column a plugin reads.
#[derive(Clone, Debug)]
pub struct Consumption {
    /// Which.
    pub key: ColumnKey,
    /// True if the plugin cannot work without it.
    pub required: bool,
    /// Plugin type that is created under its own name when nobody produces a required column.
    pub default_producer: Option<&'static str>,
}

/// The context of a plugin while it is built. No part of it is global.
#[derive(Debug)]
pub struct BuildCx<'a> {
    name: &'a str,
    params: Option<&'a Value>,
    metrics: &'a Arc<Metrics>,
    columns: &'a mut Vec<ColumnKey>,
    seed: u64,
    prefix_memory: Option<Arc<PrefixMemory>>,
    /// Set while the plugin only says which parameters it has.
    describing: Option<&'a Cell<Option<ParametersSchema>>>,
    /// Columns this plugin writes.
    pub produced: Vec<ColumnKey>,
    /// Columns this plugin reads.
    pub consumed: Vec<Consumption>,
    /// Attributes of endpoints that this plugin writes.
    pub attributes_written: Vec<AttributeKey>,
    /// Attributes of endpoints that this plugin reads.
    pub attributes_read: Vec<AttributeKey>,
    /// Other plugins this plugin asks.
    pub deciders: Vec<DeciderReference>,
    /// Filters this plugin walks.
    pub filters: Vec<FilterReference>,
    /// Warnings for the operator, which are no errors.
    pub warnings: Vec<String>,
}

/// A decider that a parameter names. It is looked up when all plugins are built, so their order does not count.
#[derive(Clone, Debug)]
pub struct DeciderReference {
    /// Path of the parameter below `parameters`.
    pub parameter: String,
    /// Instance name of the decider.
    pub name: String,
    /// Where it is put.
    pub slot: DeciderSlot,
}

/// The place of a decider in the plugin that asks it; empty until the configuration is read.
#[derive(Clone, Default)]
pub struct DeciderSlot(Arc<OnceLock<Arc<dyn Decider>>>);

impl DeciderSlot {
    /// Puts the decider in, once; a second one is not taken.
    pub fn fill(&self, decider: Arc<dyn Decider>) {
        let _ = self.0.set(decider);
    }

    /// The decider.
    pub fn get(&self) -> Option<&dyn Decider> {
        self.0.get().map(AsRef::as_ref)
    }
}

impl std::fmt::Debug for DeciderSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("DeciderSlot").field(&self.0.get().is_some()).finish()
    }
}

/// A filter that a parameter names. It is looked up when all plugins are built, so their order does not count.
#[derive(Clone, Debug)]
pub struct FilterReference {
    /// Path of the parameter below `parameters`.
    pub parameter: String,
    /// Instance name of the filter.
    pub name: String,
    /// Where it is put.
    pub slot: FilterSlot,
}

/// The place of a filter in the plugin that asks it; empty until the configuration is read.
#[derive(Clone, Default)]
pub struct FilterSlot(Arc<OnceLock<Arc<dyn Filter>>>);

impl FilterSlot {
    /// Puts the filter in, once; a second one is not taken.
    pub fn fill(&self, filter: Arc<dyn Filter>) {
        let _ = self.0.set(filter);
    }

    /// The filter.
    pub fn get(&self) -> Option<&dyn Filter> {
        self.0.get().map(AsRef::as_ref)
    }
}

impl std::fmt::Debug for FilterSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FilterSlot").field(&self.0.get().is_some()).finish()
    }
}

impl<'a> BuildCx<'a> {
    /// A context for the instance `name`. `columns` is the table of all columns so far; `seed` feeds random choices.
    pub fn new(
        name: &'a str,
        params: Option<&'a Value>,
        metrics: &'a Arc<Metrics>,
        columns: &'a mut Vec<ColumnKey>,
        seed: u64,
    ) -> Self {
        let (produced, consumed, deciders, warnings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self {
            name,
            params,
            metrics,
            columns,
            seed,
            prefix_memory: None,
            describing: None,
            produced,
            consumed,
            attributes_written: Vec::new(),
            filters: Vec::new(),
            attributes_read: Vec::new(),
            deciders,
            warnings,
        }
    }

    /// The same, for a build that ends where the plugin asks for its parameters: their schema goes into `found`.
    pub(super) fn describing(mut self, found: &'a Cell<Option<ParametersSchema>>) -> Self {
        self.describing = Some(found);
        self
    }

    /// Instance name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Seed for a plugin's own random source.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The same, with the bound that all prefix indexes share.
    #[must_use]
    pub fn with_prefix_memory(mut self, memory: Arc<PrefixMemory>) -> Self {
        self.prefix_memory = Some(memory);
        self
    }

    /// The bound that prefix indexes share; one of its own, of the default size, if none was given.
    pub fn prefix_memory(&self) -> Arc<PrefixMemory> {
        self.prefix_memory.clone().unwrap_or_else(|| PrefixMemory::new(DEFAULT_PREFIX_MEMORY_BYTES))
    }

    /// Metric families, to take handles from.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.metrics
    }

    /// The parameters, strictly: an unknown field is an error. Keys match in any letter case, `null` and an empty string
    /// mean the default. What should be written otherwise becomes a warning.
    pub fn params<P: DeserializeOwned + Default + JsonSchema>(&mut self) -> Result<P, BuildError> {
        if let Some(found) = self.describing {
            found.set(Some(SchemaGenerator::subschema_for::<P>));
            return Err(BuildError::new("only the parameters were asked for"));
        }
        super::params::decode(self.params, &mut self.warnings)
    }

    /// True if one of these parameters is given, or if the plugin only says which parameters it has.
    pub fn asks_for(&self, names: &[&str]) -> bool {
        let given = self.params.and_then(Value::as_object).into_iter().flatten();
        let mut keys = given.map(|(key, _)| key);
        self.describing.is_some() || keys.any(|key| names.iter().any(|name| key.eq_ignore_ascii_case(name)))
    }

    /// For a type without parameters: whatever is given is ignored, with a warning.
    pub fn no_params(&mut self) {
        if self
            .params
            .is_some_and(|value| !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty()))
        {
            self.warnings.push("takes no parameters; those given have no effect".to_owned());
        }
    }

    /// Notes something the operator should know.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// Declares that this plugin, or what follows from it, writes an attribute of endpoints.
    pub fn writes_attribute(&mut self, key: &AttributeKey) {
        self.attributes_written.push(key.clone());
    }

    /// Declares that this plugin reads an attribute of endpoints.
    pub fn reads_attribute(&mut self, key: &AttributeKey) {
        self.attributes_read.push(key.clone());
    }

    /// True if the parameter `name` at the top level is given as an empty string, where that is not the same as none.
    pub fn is_empty_text(&self, name: &str) -> bool {
        let given = self.params.and_then(Value::as_object).into_iter().flatten();
        given.rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).is_some_and(|(_, value)| value == "")
    }

    /// Declares that this plugin walks the filter `name`, which the parameter at `parameter` gives.
    pub fn filter(&mut self, parameter: &str, name: &str) -> FilterSlot {
        let slot = FilterSlot::default();
        let (parameter, name) = (parameter.to_owned(), name.to_owned());
        self.filters.push(FilterReference { parameter, name, slot: slot.clone() });
        slot
    }

    /// Declares that this plugin asks the decider `name`, which the parameter at `parameter` gives.
    pub fn decider(&mut self, parameter: &str, name: &str) -> DeciderSlot {
        let slot = DeciderSlot::default();
        let reference =
            DeciderReference { parameter: parameter.to_owned(), name: name.to_owned(), slot: slot.clone() };
        self.deciders.push(reference);
        slot
    }

    /// Declares that this plugin writes a column of `T` under its own name.
    pub fn produces<T: Send + Sync + 'static>(&mut self) -> Column<T> {
        let key = Self::key::<T>(self.name);
        self.produced.push(key.clone());
        self.column(key)
    }

    /// Declares that this plugin needs the column of `T` that the instance `producer` writes. If no such instance is
    /// configured and `producer` equals `default_producer`, one of that type is created.
    pub fn consumes<T: Send + Sync + 'static>(
        &mut self,
        producer: &str,
        default_producer: Option<&'static str>,
    ) -> Column<T> {
        self.consume(producer, true, default_producer)
    }

    /// Declares that this plugin reads the column of `T` that `producer` writes, if there is one.
    pub fn may_consume<T: Send + Sync + 'static>(&mut self, producer: &str) -> Column<T> {
        self.consume(producer, false, None)
    }

    fn consume<T: Send + Sync + 'static>(
        &mut self,
        producer: &str,
        required: bool,
        default_producer: Option<&'static str>,
    ) -> Column<T> {
        let key = Self::key::<T>(producer);
        let default_producer = default_producer.filter(|kind| *kind == producer);
        self.consumed.push(Consumption { key: key.clone(), required, default_producer });
        self.column(key)
    }

    fn key<T: 'static>(producer: &str) -> ColumnKey {
        let data_name = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
        ColumnKey { data: TypeId::of::<T>(), data_name, producer: producer.to_owned() }
    }

    fn column<T>(&mut self, key: ColumnKey) -> Column<T> {
        let index = self.columns.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.columns.push(key);
            self.columns.len() - 1
        });
        Column::new(index as u16)
    }
}
