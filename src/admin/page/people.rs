//! The people who look at the page: a bounded number.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most of them.
const MOST: usize = 16;

/// Places for people. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct People(Arc<Semaphore>);

impl Default for People {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

impl People {
    /// A place, held until the guard is dropped; `None` if there is none left.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}
