//! Work on a request that waits for something outside: it is done before the cycle, which never waits.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::request::{Headers, Inference, MediaEstimate, MediaRules, Tokenized};

/// The view of a request that a preparer gets.
#[derive(Clone, Copy, Debug)]
pub struct PrepareCall<'a> {
    /// Request id, for people.
    pub id: &'a str,
    /// Model after rewriting; empty if unknown.
    pub target_model: &'a str,
    /// Path of the request, without a query.
    pub path: &'a str,
    /// Request headers.
    pub headers: &'a Headers,
    /// The body without its content-encoding. A clone shares its memory, which is counted until the request was
    /// answered or its preparation has ended.
    pub body: &'a Bytes,
    /// The facts that the body states; ranges into `body`.
    pub inference: &'a Inference,
    /// How many tokens its images and videos are taken to be.
    pub media: &'a MediaEstimate,
    /// The request is only tried out, and will go nowhere.
    pub dry_run: bool,
}

impl<'a> PrepareCall<'a> {
    /// The rules for the tokens of its media.
    pub fn media_rules(&self) -> MediaRules<'a> {
        MediaRules { headers: self.headers, estimate: self.media }
    }
}

/// What a preparer found out about a request for a plugin of its own. Nobody else can read it.
#[derive(Clone)]
pub struct Finding(Arc<dyn Any + Send + Sync>);

impl Finding {
    /// A finding.
    pub fn new(found: impl Any + Send + Sync) -> Self {
        Self(Arc::new(found))
    }

    /// The finding, if it is one of this type.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finding")
    }
}

impl PartialEq for Finding {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Finding {}

/// The result of a preparation. The cycle sees it in [`RequestView`](super::RequestView).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The exact tokens of its prompts.
    pub tokens: Option<Tokenized>,
    /// Something for the plugin's own producer.
    pub finding: Option<Finding>,
}

/// Why a preparation came to nothing. The request goes on without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// It is this request's own fault: whoever was asked works.
    #[error("{0}")]
    Refused(String),
    /// The service that was asked does not work.
    #[error("{0}")]
    Failed(String),
}

/// Work in progress. It owns what it needs; dropping it ends the work.
pub type Preparing = Pin<Box<dyn Future<Output = Result<Prepared, PrepareError>> + Send>>;

/// The bounds on what a preparer may cost. The caller enforces them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareLimits {
    /// Longest run of one piece of work, while a request waits for other reasons as well.
    pub timeout: Duration,
    /// Longest time that requests wait for this alone, without getting anything for it, before none waits any more.
    pub patience: Duration,
    /// Most pieces of work at once.
    pub concurrent: usize,
}

/// Finds out about a request what has to be known before it is scheduled, and cannot be known at once.
pub trait Preparer: Send + Sync {
    /// How much it may cost.
    fn limits(&self) -> PrepareLimits;

    /// Begins to work on a request; `None` if there is nothing to do for it. The first poll may already be ready.
    fn prepare(&self, call: &PrepareCall<'_>) -> Option<Preparing>;

    /// The smallest piece of work of its kind. It shows whether whoever is asked works again.
    fn probe(&self) -> Preparing;
}
