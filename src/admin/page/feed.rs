//! Events for those who look: made once a second for all of them, and not at all while nobody looks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::people::People;
use super::tick::{Memory, Tick};
use crate::admin::state::AdminState;

/// Time between two events.
const EVERY: Duration = Duration::from_secs(1);

/// Feeds those who look. Clones share it.
#[derive(Clone, Default)]
pub struct Feed {
    people: People,
    /// The last second; `None` while nobody looks.
    making: Arc<Mutex<Option<watch::Receiver<Tick>>>>,
}

impl Feed {
    /// Events for one more viewer; `None` if there are too many.
    pub(super) fn view(
        &self,
        state: &AdminState,
    ) -> Option<impl Stream<Item = Result<Bytes, Infallible>> + Send + use<>> {
        let place = self.people.enter()?;
        let ticks = self.join(state);
        let viewer = Viewer { ticks, seen: None, fresh: true, _place: place };
        Some(stream::unfold(viewer, async |mut viewer| {
            let event = viewer.next().await?;
            Some((Ok(event), viewer))
        }))
    }

    /// What is made for all. The first viewer begins it.
    fn join(&self, state: &AdminState) -> watch::Receiver<Tick> {
        let mut making = self.making.lock();
        // A sender that is gone has ended with its last viewer.
        if let Some(ticks) = making.as_ref().filter(|ticks| ticks.has_changed().is_ok()) {
            return ticks.clone();
        }
        let mut memory = Memory::default();
        let (sender, ticks) = watch::channel(memory.tick(state));
        *making = Some(ticks.clone());
        drop(making);
        let (state, making) = (state.clone(), Arc::clone(&self.making));
        tokio::spawn(async move {
            let mut pace = interval(EVERY);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace.tick().await;
            loop {
                pace.tick().await;
                {
                    let mut making = making.lock();
                    // One is the one that is kept for those who come.
                    if sender.receiver_count() <= 1 {
                        *making = None;
                        return;
                    }
                }
                sender.send_replace(memory.tick(&state));
            }
        });
        ticks
    }
}

struct Viewer {
    ticks: watch::Receiver<Tick>,
    /// Number of the list of endpoints that was sent.
    seen: Option<u64>,
    /// Nothing was sent yet.
    fresh: bool,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Viewer {
    /// The next event: the list of endpoints where it changed, and the figures.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::take(&mut self.fresh) {
            self.ticks.changed().await.ok()?;
        }
        let tick = self.ticks.borrow_and_update().clone();
        if self.seen == Some(tick.list_number) {
            return Some(tick.figures);
        }
        self.seen = Some(tick.list_number);
        Some([tick.list, tick.figures].concat().into())
    }
}
