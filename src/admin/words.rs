//! A record with the words that explain it, where they are asked for.

use axum::response::{IntoResponse, Json, Response};
use serde_json::Value;

use crate::decisions::DecisionView;
use crate::decisions::explain::{Wanted, explain};

/// Rows and sentences of an explanation, at most.
const ROWS: usize = 50;

/// The record, and with `words=true` what `pointsman explain` says of it.
pub(super) fn with_words(mut record: Value, parameters: &[(String, String)]) -> Response {
    if parameters.iter().any(|(name, value)| name == "words" && value == "true")
        && let Ok(view) = serde_json::from_value::<DecisionView>(record.clone())
    {
        record["words"] = explain(&view, Wanted { rows: ROWS, why_not: None }).into();
    }
    Json(record).into_response()
}
