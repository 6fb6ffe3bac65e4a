//! Whole, cut and hostile messages.

use std::collections::VecDeque;

use futures_util::StreamExt as _;
use http_body::Frame;
use proptest::prelude::*;

use super::super::wire::{HttpBody, Request};
use super::*;

/// A body whose frames are given; behind them it stays open.
#[derive(Default)]
struct Frames(VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.0.pop_front() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

fn piece(length: usize) -> ProcessingRequest {
    let body = HttpBody { body: vec![7; length].into(), end_of_stream: false };
    ProcessingRequest { request: Some(Request::RequestBody(body)), ..ProcessingRequest::default() }
}

fn framed(flag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut wire = vec![flag];
    wire.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    wire.extend_from_slice(bytes);
    wire
}

fn encoded(message: &ProcessingRequest) -> Vec<u8> {
    framed(0, &message.encode_to_vec())
}

fn reader(budget: &Arc<BodyBudget>, wire: &[u8], cuts: usize) -> Messages<Frames> {
    let frames = wire.chunks(cuts.max(1)).map(Bytes::copy_from_slice).collect();
    Messages::new(Frames(frames), true, 4 << 20, Arc::clone(budget))
}

/// The message that is ready now.
fn ready_now(messages: &mut Messages<Frames>) -> Option<Result<ProcessingRequest, Broken>> {
    let waker = std::task::Waker::noop();
    match messages.poll_next_unpin(&mut Context::from_waker(waker)) {
        Poll::Ready(item) => item,
        Poll::Pending => None,
    }
}

fn budget(limit: u64) -> Arc<BodyBudget> {
    Arc::new(BodyBudget::new(limit))
}

#[tokio::test(start_paused = true)]
async fn unfinished_messages_count_and_are_refused_where_the_bound_has_no_room() {
    let budget = budget(1 << 20);
    let wire = encoded(&piece(4 << 20));
    let mut messages = reader(&budget, &wire[..wire.len() - 1], 16 << 10);
    // 4 MiB and a little is over the limit of a message; 3 MiB is not.
    assert!(
        matches!(ready_now(&mut messages), Some(Err(Broken::Status(status))) if status.code() == tonic::Code::OutOfRange)
    );
    let wire = encoded(&piece(3 << 20));
    let mut messages = reader(&budget, &wire[..wire.len() - 1], 16 << 10);
    assert!(matches!(ready_now(&mut messages), Some(Err(Broken::Full))));
    assert!(budget.used() <= budget.limit());
    drop(messages);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_came_of_an_unfinished_message_counts_until_it_is_whole() {
    let budget = budget(0);
    let wire = encoded(&piece(100_000));
    let mut messages = reader(&budget, &wire[..50_000], 16 << 10);
    assert!(ready_now(&mut messages).is_none());
    assert!(budget.used() >= 50_000 - 5, "{}", budget.used());
    messages.body.0.push_back(Bytes::copy_from_slice(&wire[50_000..]));
    assert_eq!(ready_now(&mut messages).unwrap().unwrap(), piece(100_000));
    assert_eq!(budget.used(), 0, "whoever gets the message counts it");
}

#[tokio::test(start_paused = true)]
async fn a_running_answer_goes_on_although_the_bound_is_reached() {
    let budget = budget(1);
    let wire = encoded(&piece(50_000));
    let mut messages = reader(&budget, &wire, 16 << 10);
    messages.serving();
    assert!(ready_now(&mut messages).unwrap().is_ok());
    let wire = encoded(&piece(2 << 20));
    let mut messages = reader(&budget, &wire, 16 << 10);
    messages.serving();
    assert!(matches!(ready_now(&mut messages), Some(Err(Broken::Full))), "but not at any size");
    drop(messages);
    assert_eq!(budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_never_finished_ends_after_its_time_although_bytes_trickle() {
    let budget = budget(0);
    let wire = encoded(&piece(1000));
    let mut messages = reader(&budget, &wire[..10], 16);
    let begun = Instant::now();
    let trickle = async {
        loop {
            tokio::select! {
                item = messages.next() => return item,
                () = tokio::time::sleep(Duration::from_secs(7)) => {}
            }
            messages.body.0.push_back(Bytes::from_static(b"\x07"));
        }
    };
    assert!(matches!(trickle.await, Some(Err(Broken::Stalled))));
    let taken = begun.elapsed();
    assert!(taken >= UNFINISHED && taken < UNFINISHED + Duration::from_secs(8), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_between_two_messages_may_be_silent() {
    let budget = budget(0);
    let mut messages = reader(&budget, &encoded(&piece(10)), 3);
    assert!(messages.next().await.unwrap().is_ok());
    let silent = tokio::time::timeout(Duration::from_hours(1), messages.next()).await;
    assert!(silent.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_compressed_message_is_read_up_to_the_limit() {
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        framed(1, &encoder.finish().unwrap())
    };
    let budget = budget(0);
    let mut messages = reader(&budget, &gzip(&piece(100_000).encode_to_vec()), 16 << 10);
    assert_eq!(ready_now(&mut messages).unwrap().unwrap(), piece(100_000));
    let mut messages = reader(&budget, &gzip(&piece(5 << 20).encode_to_vec()), 16 << 10);
    assert!(
        matches!(ready_now(&mut messages), Some(Err(Broken::Status(status))) if status.code() == tonic::Code::ResourceExhausted)
    );
    // Four megabytes are the limit, but not of a few kilobytes.
    let mut messages = reader(&budget, &gzip(&piece(3 << 20).encode_to_vec()), 16 << 10);
    assert!(
        matches!(ready_now(&mut messages), Some(Err(Broken::Status(status))) if status.code() == tonic::Code::ResourceExhausted)
    );
    let mut messages = reader(&budget, &framed(1, b"no gzip"), 16 << 10);
    assert!(matches!(ready_now(&mut messages), Some(Err(Broken::Status(_)))));
}

#[tokio::test(start_paused = true)]
async fn headers_of_a_megabyte_are_no_message() {
    let header = super::super::wire::HeaderValue { key: "x".into(), ..Default::default() };
    let map = super::super::wire::HeaderMap { headers: vec![header; 300_000] };
    let headers = super::super::wire::HttpHeaders { headers: Some(map), end_of_stream: true };
    let request = Some(Request::RequestHeaders(headers));
    let wire = encoded(&ProcessingRequest { request, ..ProcessingRequest::default() });
    let budget = budget(0);
    let mut messages = reader(&budget, &wire, 16 << 10);
    assert!(
        matches!(ready_now(&mut messages), Some(Err(Broken::Status(status))) if status.code() == tonic::Code::OutOfRange)
    );
}

#[tokio::test(start_paused = true)]
async fn thousands_of_headers_are_read_and_hundreds_of_thousands_of_empty_ones_are_not() {
    use super::super::wire::{HeaderMap, HeaderValue, HttpHeaders, HttpTrailers};
    let map = |count| Some(HeaderMap { headers: vec![HeaderValue::default(); count] });
    let kinds: [fn(Option<HeaderMap>) -> Request; 4] = [
        |headers| Request::RequestHeaders(HttpHeaders { headers, end_of_stream: true }),
        |headers| Request::ResponseHeaders(HttpHeaders { headers, end_of_stream: true }),
        |trailers| Request::RequestTrailers(HttpTrailers { trailers }),
        |trailers| Request::ResponseTrailers(HttpTrailers { trailers }),
    ];
    for kind in kinds {
        for (count, is_read) in [(16_384, true), (16_385, false), (500_000, false)] {
            let message =
                ProcessingRequest { request: Some(kind(map(count))), ..ProcessingRequest::default() };
            // Unknown fields that each have a few bytes, so that the message is looked at.
            let wire = framed(0, &[message.encode_to_vec(), b"\xf8\x07\x01".repeat(100)].concat());
            let budget = budget(0);
            let mut messages = reader(&budget, &wire, 16 << 10);
            let read = ready_now(&mut messages).unwrap();
            assert_eq!(read.is_ok(), is_read, "{count}: {read:?}");
        }
    }
}

proptest! {
    #[test]
    fn messages_are_the_same_wherever_frames_are_cut(
        lengths in prop::collection::vec(0..3000_usize, 0..6),
        cut in 1..4000_usize,
        serving in any::<bool>(),
    ) {
        let sent: Vec<_> = lengths.into_iter().map(piece).collect();
        let wire: Vec<u8> = sent.iter().flat_map(encoded).collect();
        let budget = budget(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let got = runtime.block_on(async {
            let mut messages = reader(&budget, &wire, cut);
            if serving {
                messages.serving();
            }
            let mut got = Vec::new();
            while let Some(message) = ready_now(&mut messages) {
                got.push(message.unwrap());
            }
            got
        });
        prop_assert_eq!(got, sent);
        prop_assert_eq!(budget.used(), 0);
    }

    #[test]
    fn no_bytes_do_harm(wire in prop::collection::vec(any::<u8>(), 0..300), cut in 1..50_usize) {
        let budget = budget(1000);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut messages = reader(&budget, &wire, cut);
            while let Some(Ok(_)) = ready_now(&mut messages) {}
        });
        prop_assert_eq!(budget.used(), 0);
    }
}
