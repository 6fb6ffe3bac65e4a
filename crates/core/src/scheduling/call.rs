//! The view of one request that plugins get.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Candidates, Column, Columns, Finding};
use crate::pool::Endpoint;
use crate::request::{Headers, Inference, MediaEstimate, MediaRules, Tokenized};

/// The request, as far as it concerns the choice of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Request id: the client's `x-request-id`, or one made here. For people; it is no key.
    pub id: &'a str,
    /// Model after rewriting; empty if unknown.
    pub target_model: &'a str,
    /// Request headers.
    pub headers: &'a Headers,
    /// The body as received; empty for header-only requests.
    pub body: &'a Bytes,
    /// The facts that the body states; ranges into `body`.
    pub inference: &'a Inference,
    /// The exact tokens of its prompts, where somebody made them in time.
    pub tokens: Option<&'a Tokenized>,
    /// What preparers found out about it for their own producers.
    pub findings: &'a [Finding],
    /// How many tokens its images and videos are taken to be, where nobody counts them.
    pub media: &'a MediaEstimate,
    /// Priority of the objective; below 0 is sheddable.
    pub priority: i32,
    /// Fairness id; never empty.
    pub fairness_id: &'a str,
}

impl<'a> RequestView<'a> {
    /// The rules for the tokens of its media.
    pub fn media_rules(&self) -> MediaRules<'a> {
        MediaRules { headers: self.headers, estimate: self.media }
    }
}

/// One call of a filter, scorer or picker: the request and the endpoints that are still in the running.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The request.
    pub request: RequestView<'a>,
    /// When scheduling began.
    pub now: Instant,
    candidates: &'a Candidates,
    survivors: &'a [u32],
    columns: &'a Columns,
    peer: Option<&'a Arc<Endpoint>>,
}

impl<'a> Call<'a> {
    /// A call over the candidates whose slots are in `survivors` (ascending).
    pub fn new(
        request: RequestView<'a>,
        now: Instant,
        candidates: &'a Candidates,
        survivors: &'a [u32],
        columns: &'a Columns,
    ) -> Self {
        Self { request, now, candidates, survivors, columns, peer: None }
    }

    /// The same over the candidates whose slots are in `survivors` (ascending).
    #[must_use]
    pub fn among(self, survivors: &'a [u32]) -> Self {
        Self { survivors, ..self }
    }

    /// The same beside an endpoint that was chosen for another stage of the request.
    #[must_use]
    pub fn beside(self, peer: Option<&'a Arc<Endpoint>>) -> Self {
        Self { peer, ..self }
    }

    /// The endpoint of another stage that the one to be chosen will work with, if there is one and it is chosen
    /// already.
    pub fn peer(&self) -> Option<&'a Arc<Endpoint>> {
        self.peer
    }

    /// Number of endpoints in the running.
    pub fn len(&self) -> usize {
        self.survivors.len()
    }

    /// True if none is left.
    pub fn is_empty(&self) -> bool {
        self.survivors.is_empty()
    }

    /// The endpoints in the running, in slot order. Position in this iteration = index into scores and masks.
    pub fn endpoints(&self) -> impl ExactSizeIterator<Item = &'a Arc<Endpoint>> + use<'a> {
        let candidates = self.candidates;
        self.survivors.iter().map(move |&slot| candidates.at(slot))
    }

    /// The endpoint at position `index`.
    pub fn endpoint(&self, index: usize) -> Option<&'a Arc<Endpoint>> {
        self.survivors.get(index).map(|&slot| self.candidates.at(slot))
    }

    /// Slots of the endpoints in the running: their places among all candidates, which is how columns are indexed.
    pub fn slots(&self) -> &'a [u32] {
        self.survivors
    }

    /// All candidates, in the running or not.
    pub fn candidates(&self) -> &'a Candidates {
        self.candidates
    }

    /// A column's values for the endpoints in the running; `None` if its producer did not run.
    pub fn column<T: Send + Sync + 'static>(
        &self,
        column: Column<T>,
    ) -> Option<impl ExactSizeIterator<Item = &'a T> + use<'a, T>> {
        let cells = self.columns.slice(column)?;
        if cells.len() != self.candidates.len() {
            return None;
        }
        Some(self.survivors.iter().map(move |&slot| &cells[slot as usize]))
    }

    /// All columns.
    pub fn columns(&self) -> &'a Columns {
        self.columns
    }
}
