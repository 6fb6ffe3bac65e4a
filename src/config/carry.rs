//! What a running configuration leaves to the next one: plugins whose type, name and parameters stay keep what they
//! know.

use std::sync::Arc;

use serde_json::Value;

use crate::plugins::{ColumnKey, Consumption, Roles};
use crate::pool::AttributeKey;

/// The plugins of a configuration that may live on in the next one.
#[derive(Debug, Default)]
pub struct Carried {
    pub(super) columns: Vec<ColumnKey>,
    pub(super) instances: Vec<CarriedInstance>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct CarriedInstance {
    pub(super) name: Arc<str>,
    pub(super) kind: &'static str,
    pub(super) parameters: Option<Value>,
    pub(super) roles: Roles,
    pub(super) produced: Vec<ColumnKey>,
    pub(super) consumed: Vec<Consumption>,
    pub(super) attributes_written: Vec<AttributeKey>,
    pub(super) attributes_read: Vec<AttributeKey>,
}
