//! Reads single fields of a body.

use crate::json::{Json, Map};
use crate::unsupported::Unsupported;

/// The value of a flag, or `otherwise` if it is absent.
pub(crate) fn flag(body: &Map, field: &'static str, otherwise: bool) -> Result<bool, Unsupported> {
    match body.get(field) {
        None => Ok(otherwise),
        Some(Json::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Unsupported::refused(field, "is neither true nor false")),
    }
}
