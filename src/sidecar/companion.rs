//! Calls that go on beside an answer, such as that of a prefill server still at work while the client already reads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A call that goes on beside an answer. The future counts the outcome of the call itself.
pub(super) type Companion = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long such a call may still go on after the answer is complete.
const AFTERWARDS: Duration = Duration::from_mins(1);

/// The calls beside one answer. Dropping this value ends them, which happens when the client leaves.
#[derive(Default)]
pub(super) struct Companions(Vec<Companion>);

impl Companions {
    /// Makes a set of these calls.
    pub(super) fn new(calls: Vec<Companion>) -> Self {
        Self(calls)
    }

    /// Returns true if no call is running.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Polls each call, and forgets those that have ended.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        self.0.retain_mut(|call| call.as_mut().poll(cx) == Poll::Pending);
    }

    /// Gives the calls that are still running a minute of their own, now that the answer is complete.
    pub(super) fn go_on(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        for call in self.0.drain(..) {
            // It does not matter whether the call ended or ran out of time.
            runtime.spawn(async move { tokio::time::timeout(AFTERWARDS, call).await.is_ok() });
        }
    }

    /// Ends all calls, because the answer broke off.
    pub(super) fn give_up(&mut self) {
        self.0.clear();
    }
}

impl std::fmt::Debug for Companions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Companions").field(&self.0.len()).finish()
    }
}
