//! `StreamIsActive`: verdicts pushed when they change.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;

use super::activity::DemandVerdict;
use super::shared::{BREATH, LOOK_AGAIN, Shared};
use super::wire::IsActiveResponse;
use super::{Role, Trigger};

/// The answers of one stream.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<IsActiveResponse, Status>> + Send>>;

/// A place among the streams that may be open, given back when dropped.
pub(super) struct OpenStream(Arc<AtomicUsize>);

impl OpenStream {
    /// Takes a place if fewer than `max` are taken.
    pub(super) fn take(count: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let more = |open: usize| (open < max).then_some(open + 1);
        count.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(Self(Arc::clone(count)))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// One open stream. Nothing runs but when it is polled, and it leaves nothing behind when the client goes.
pub(super) struct Streamed {
    shared: Arc<Shared>,
    trigger: Trigger,
    waiting: watch::Receiver<u64>,
    role: watch::Receiver<Role>,
    said: Option<LastAnswer>,
    _place: OpenStream,
}

/// The last word of a stream.
#[derive(Clone, Copy)]
struct LastAnswer {
    active: bool,
    at: Instant,
}

impl Streamed {
    pub(super) fn new(shared: Arc<Shared>, trigger: Trigger, place: OpenStream) -> Self {
        let waiting = shared.source.subscribe();
        let role = shared.role.subscribe();
        Self { shared, trigger, waiting, role, said: None, _place: place }
    }

    /// The stream itself.
    pub(super) fn answers(self) -> Answers {
        Box::pin(futures_util::stream::unfold(self, |mut stream| async move {
            let active = stream.next().await?;
            Some((Ok(IsActiveResponse { result: active }), stream))
        }))
    }

    /// Waits for something to say. `None` when another replica is to be asked, at shutdown, or when the pool is gone:
    /// KEDA takes an orderly end, and no error, for a reason to come again soon.
    async fn next(&mut self) -> Option<bool> {
        let keepalive = self.shared.settings.keepalive;
        loop {
            if *self.role.borrow_and_update() != Role::Answering {
                return None;
            }
            // A change since this stream said there is no work is news, even if it was undone. One from an active time
            // is none.
            let stirred = self.waiting.has_changed().ok()? && self.said.is_some_and(|said| !said.active);
            self.waiting.borrow_and_update();
            let look = self.shared.look(stirred);
            let Trigger { activation, cool_down, .. } = self.trigger;
            let verdict = self.shared.activity.lock().judge(activation, cool_down, look);
            let active = verdict.is_active();
            let again = match self.said {
                Some(said) if said.active == active && look.at < said.at + keepalive => said.at + keepalive,
                _ => {
                    self.said = Some(LastAnswer { active, at: look.at });
                    return Some(active);
                }
            };
            let wake = match verdict {
                DemandVerdict::CoolingUntil(end) => end.min(look.at + LOOK_AGAIN),
                DemandVerdict::Busy | DemandVerdict::Idle => look.at + LOOK_AGAIN,
            };
            // While active, further waiting requests change nothing here.
            tokio::select! {
                changed = self.waiting.changed(), if !active => {
                    changed.ok()?;
                    self.waiting.mark_changed();
                    // The first change is told at once: it was preceded by silence. Those after it are taken together.
                    if !self.tells_now() {
                        sleep(BREATH).await;
                    }
                }
                () = sleep_until(wake.min(again)) => {}
                _ = self.role.changed() => {}
            }
        }
    }

    /// True if what waits now is enough to change the verdict.
    fn tells_now(&self) -> bool {
        self.shared.source.queue_depth() > self.trigger.activation
    }
}
