//! Ends a stream whose answers nobody takes.
//!
//! A stream whose client has closed its flow-control window is not asked for its next answer, so that it cannot end
//! itself. Its future is therefore polled by a guard: the stream says by when it must be asked again
//! ([`must_be_taken_by`]), and the guard drops it, which resets it, when that time has passed.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use hyper::rt::Executor;
use tokio::time::Instant;

use super::LazyTimer;

thread_local! {
    /// The time by which the stream that this thread polls must be asked for its next answer.
    static TAKEN_BY: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Says by when the stream that is being polled must be asked for its next answer; `None`: whenever. It holds until it
/// is said anew. Outside of a stream's poll it does nothing.
pub fn must_be_taken_by(time: Option<Instant>) {
    TAKEN_BY.set(time);
}

/// Runs each stream in a task of its own, until it ends or its time is up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guarded;

impl<F> Executor<F> for Guarded
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        tokio::spawn(guarded(stream));
    }
}

/// Polls `stream` until it ends, or until the time that it said has passed.
async fn guarded<F: Future>(stream: F) {
    let mut stream = pin!(stream);
    let mut taken_by = None;
    let mut timer = LazyTimer::default();
    poll_fn(|cx| {
        TAKEN_BY.set(taken_by);
        let polled = stream.as_mut().poll(cx);
        taken_by = TAKEN_BY.take();
        if polled.is_ready() {
            return Poll::Ready(());
        }
        match taken_by {
            Some(time) => timer.poll(time, cx),
            None => Poll::Pending,
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep_until;

    use super::*;

    /// Says each of these times in seconds from the start, one a second, and then nothing more.
    async fn stream(times: &'static [Option<u64>]) {
        let start = Instant::now();
        let mut told = 0;
        let mut tick = Box::pin(sleep_until(start));
        poll_fn(|cx| {
            while told < times.len() && tick.as_mut().poll(cx).is_ready() {
                must_be_taken_by(times[told].map(|time| start + Duration::from_secs(time)));
                told += 1;
                tick.as_mut().reset(start + Duration::from_secs(told as u64));
            }
            Poll::<()>::Pending
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_the_time_that_it_said_last_has_passed_and_not_before() {
        for (times, ends) in [
            (&[Some(5)][..], Some(5)),
            (&[Some(5), Some(20)], Some(20)),
            (&[Some(5), None], None),
            (&[Some(5), Some(20), Some(3)], Some(5)),
            (&[], None),
        ] {
            let start = Instant::now();
            let ended = tokio::time::timeout(Duration::from_secs(100), guarded(stream(times))).await;
            assert_eq!(ended.ok().map(|()| start.elapsed().as_secs()), ends, "{times:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn streams_of_one_thread_have_times_of_their_own() {
        let first = tokio::time::timeout(Duration::from_secs(50), guarded(stream(&[Some(30)])));
        let second = tokio::time::timeout(Duration::from_secs(50), guarded(stream(&[None])));
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_ok() && second.is_err());
    }
}
