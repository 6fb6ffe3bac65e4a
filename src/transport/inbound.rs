//! The body of a request, which is read to its end even if its service has stopped reading.
//!
//! If an answer ends before its request, HTTP/2 resets the stream. h2 then counts the bytes that the client has sent by
//! that time as an error of the connection, and closes a connection with too many errors. Behind a proxy all clients
//! share that connection. Therefore the rest of the body is read and dropped for a short while. The proxy ends the
//! stream as soon as it sees the answer.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::runtime::Handle;

/// The longest time for which the rest of a body is read.
const PATIENCE: Duration = Duration::from_secs(5);

/// The body of a request.
pub(super) struct Inbound<B: Body<Data = Bytes> + Send + Unpin + 'static> {
    /// The body; `None` once it has ended.
    body: Option<B>,
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Inbound<B> {
    pub(super) fn new(body: B) -> Self {
        Self { body: (!body.is_end_stream()).then_some(body) }
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Body for Inbound<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Drop for Inbound<B> {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        // The end of the body is usually here already, so that no task is needed.
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(None | Some(Err(_))) = Pin::new(&mut body).poll_frame(&mut cx) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            // The stream of a client that sends for longer is reset.
            let _: Result<(), _> = tokio::time::timeout(PATIENCE, rest).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use tokio::sync::mpsc;
    use tokio_stream::StreamExt as _;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_body_is_read_after_its_service_is_done_but_not_for_ever() {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let frames = ReceiverStream::new(receiver).map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        let mut body = Inbound::new(StreamBody::new(frames));
        sender.send(Bytes::from_static(b"first")).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
        drop(body);
        for _ in 0..100 {
            sender.send(Bytes::from_static(b"x")).await.unwrap();
        }
        tokio::time::sleep(PATIENCE).await;
        sender.closed().await;
    }

    #[tokio::test]
    async fn a_body_that_has_ended_leaves_nothing_behind() {
        let mut body = Inbound::new(http_body_util::Full::new(Bytes::from_static(b"all")));
        while body.frame().await.is_some() {}
        drop(body);
        let tasks = Handle::current().metrics().num_alive_tasks();
        assert_eq!(tasks, 0);
    }
}
