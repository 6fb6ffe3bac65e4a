//! Requests that are decided for nobody: `POST /debug/decide`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::Value;

/// Path of the page.
pub(super) const DECIDE: &str = "/debug/decide";
/// Longest time that a decision may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// A decision for nobody on its way: the answer, or what is wrong with the question.
pub type Trying = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

/// Decides the request that a document describes, for nobody.
pub type DryRunner = Arc<dyn Fn(Bytes) -> Trying + Send + Sync>;
