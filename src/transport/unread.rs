//! Ends a stream whose client does not read its answers.
//!
//! If a client has closed the flow-control window of a stream, HTTP/2 does not poll the stream's body for the next
//! answer. The stream cannot end itself then. Its future is therefore polled by a guard. The stream tells the guard a
//! time by which its body must be polled again ([`must_be_taken_by`]). When that time has passed, the guard drops the
//! future, which resets the stream.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use hyper::rt::Executor;
use tokio::time::Instant;

use super::LazyTimer;

thread_local! {
    /// The time by which the body of the stream that this thread polls must be polled again.
    static TAKEN_BY: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Sets the time by which the body of the stream that is being polled must be polled again. `None` sets no limit. The
/// value holds until the next call. Outside of a stream's poll the call does nothing.
pub fn must_be_taken_by(time: Option<Instant>) {
    TAKEN_BY.set(time);
}

/// Runs each stream in a task of its own, until the stream ends or its time is up.
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

/// Polls `stream` until it ends, or until the time that it set has passed.
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

    /// A stream that sets each of these times, in seconds from the start, one each second, and then no further time.
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
