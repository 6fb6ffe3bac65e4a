//! Calls that go on beside an answer: the prefill server is still at work while the client already reads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A call that goes on; it counts what becomes of it itself.
pub(super) type Companion = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long a call may go on when the answer is complete.
const AFTERWARDS: Duration = Duration::from_mins(1);

/// The calls beside one answer. If the client leaves, they are dropped with it, which ends them.
#[derive(Default)]
pub(super) struct Companions(Vec<Companion>);

impl Companions {
    /// These calls.
    pub(super) fn new(calls: Vec<Companion>) -> Self {
        Self(calls)
    }

    /// True if none goes on.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets them go on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        self.0.retain_mut(|call| call.as_mut().poll(cx) == Poll::Pending);
    }

    /// The answer is complete, and they are not: they get a while of their own.
    pub(super) fn go_on(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for call in self.0.drain(..) {
            // Either way it is over.
            runtime.spawn(async move { tokio::time::timeout(AFTERWARDS, call).await.is_ok() });
        }
    }

    /// The answer broke off.
    pub(super) fn give_up(&mut self) {
        self.0.clear();
    }
}

impl std::fmt::Debug for Companions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Companions").field(&self.0.len()).finish()
    }
}
