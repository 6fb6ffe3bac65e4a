//! Bounds the pages that are sent to slow clients, and the bodies that are read from slow clients. Only a few may be
//! under way at a time, and none for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::connections::Peer;
use crate::metrics::ConnectionEnd;

/// The longest time for one page or body.
const PATIENCE: Duration = Duration::from_mins(1);

/// The pages or bodies that are under way. Clones share the list.
#[derive(Clone)]
pub(super) struct Writers {
    most: usize,
    reading: Arc<Mutex<Reading>>,
}

#[derive(Default)]
struct Reading {
    next: u64,
    peers: BTreeMap<u64, Peer>,
}

impl Writers {
    /// Allows `most` at the same time, because each is held in memory. For a further one, the connection of the one
    /// that has taken longest is closed.
    pub(super) fn new(most: usize) -> Self {
        Self { most, reading: Arc::default() }
    }

    /// Adds a page or a body of `peer`, until the returned guard is dropped.
    pub(super) fn begin(&self, peer: &Peer) -> Writing {
        let mut reading = self.reading.lock();
        let slowest = if reading.peers.len() < self.most { None } else { reading.peers.pop_first() };
        let number = reading.next;
        reading.next += 1;
        reading.peers.insert(number, peer.clone());
        drop(reading);
        if let Some((_, slowest)) = slowest {
            slowest.give_up(ConnectionEnd::Slow);
        }
        let late = peer.clone();
        let limit = tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            late.give_up(ConnectionEnd::Slow);
        });
        Writing { writers: self.clone(), number, limit: limit.abort_handle() }
    }
}

/// A page or a body that is under way.
pub(super) struct Writing {
    writers: Writers,
    number: u64,
    limit: AbortHandle,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.limit.abort();
        self.writers.reading.lock().peers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::metrics::Metrics;
    use crate::transport::{Connections, FEW_CLIENTS};

    #[tokio::test(start_paused = true)]
    async fn of_too_many_slow_readers_the_slowest_goes_and_none_stays_for_long() {
        const PAGES: usize = 16;
        let connections = Connections::new(FEW_CLIENTS, Metrics::new().port("metrics"));
        let writers = Writers::new(PAGES);
        let readers: Vec<_> = (0..=PAGES).map(|_| connections.admit().unwrap()).collect();
        let start = Instant::now();
        let mut writing: Vec<_> = readers.iter().map(|reader| writers.begin(reader.peer())).collect();
        readers[0].peer().given_up().await;
        let second = timeout(PATIENCE / 2, readers[1].peer().given_up()).await;
        assert!(second.is_err(), "there is room for it");
        drop(writing.pop());
        readers[1].peer().given_up().await;
        assert_eq!(start.elapsed(), PATIENCE);
        let done = timeout(PATIENCE, readers[PAGES].peer().given_up()).await;
        assert!(done.is_err(), "what was read in time is left alone");
    }
}
