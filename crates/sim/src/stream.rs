//! The body of a streamed answer, with one event for each token as the tokens come.

use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::watch;

use super::api::answer::Answer;
use super::driver::Ticket;
use super::faults::Faults;
use super::reply::{Body, Reset};
use super::wire::Abort;

struct Stream {
    answer: Answer,
    /// The ticket is dropped with the body, which cancels the rest of the request.
    ticket: Ticket,
    faults: watch::Receiver<Faults>,
    abort: Abort,
    opened: bool,
    sent: u32,
    done: bool,
}

/// Makes a body that sends `answer` as fast as `ticket` advances. Between events it obeys the faults.
pub(crate) fn body(answer: Answer, ticket: Ticket, faults: watch::Receiver<Faults>, abort: Abort) -> Body {
    let state = Stream { answer, ticket, faults, abort, opened: false, sent: 0, done: false };
    let events = stream::unfold(state, |mut state| async move {
        let event = state.next().await?;
        if event.is_err() {
            state.abort.set();
            state.done = true;
        }
        Some((event.map(|text| Frame::data(Bytes::from(text))), state))
    });
    StreamBody::new(events).boxed_unsync()
}

impl Stream {
    async fn next(&mut self) -> Option<Result<String, Reset>> {
        if self.done {
            return None;
        }
        let complete = self.sent == self.answer.tokens();
        let ticket =
            async { if complete { self.ticket.end().await } else { self.ticket.past(self.sent).await } };
        let progress = tokio::select! {
            biased;
            // A reset does not wait for the next token.
            _ = self.faults.wait_for(|faults| faults.reset) => return Some(Err(Reset)),
            progress = ticket => progress,
        };
        match self.faults.wait_for(|faults| faults.reset || !faults.hang).await {
            Ok(faults) if faults.reset => return Some(Err(Reset)),
            _ => {}
        }
        if complete {
            self.done = true;
            return Some(Ok(self.answer.closing(progress)));
        }
        if !self.opened {
            self.opened = true;
            let opening = self.answer.opening();
            if !opening.is_empty() {
                return Some(Ok(opening));
            }
        }
        self.sent += 1;
        Some(Ok(self.answer.token(self.sent - 1)))
    }
}
