//! Pages on their way to clients that read slowly, and bodies on their way from clients that write slowly: few at a
//! time, and none for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::connections::Peer;
use crate::metrics::ConnectionEnd;

/// Longest time for reading a page.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is on its way to slow clients, or from them. Clones share it.
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
    /// At most so many at once, for each is held in memory: beyond it the one that has taken longest is given up.
    pub(super) fn new(most: usize) -> Self {
        Self { most, reading: Arc::default() }
    }

    /// Something is on its way to `peer`, or from it, until the guard is dropped.
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

/// A page or a body that is on its way.
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
