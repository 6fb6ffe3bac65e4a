//! Bodies with a content encoding, through the director.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::tests::{director, handle, parts};
use super::*;
use crate::request::{Headers, Parsers};
use crate::telemetry::Span;

#[tokio::test(start_paused = true)]
async fn a_compressed_body_goes_on_unread_when_no_decoder_is_free_and_nothing_can_rewrite_it() {
    let director = director(&[8000]);
    let taken = director.decoders.clone().acquire_many_owned(4).await.unwrap();
    let body = || Bytes::from(vec![b'x'; 20_000]);
    let ask = |headers: Vec<(&'static str, &'static str)>| {
        let mut all = Headers::from([("content-encoding", "zstd")]);
        for (name, value) in headers {
            all.push(name.into(), value.into());
        }
        Ask { headers: all, body: body(), body_seen: BodySeen::Whole, hint: SubsetHint::Absent }
    };
    let now = Instant::now();
    let routed = director.handle(ask(vec![]), now, &mut Span::off()).await.unwrap();
    assert_eq!((routed.body.concat(), routed.body_changed), (body().to_vec(), false));
    let asked = director.handle(ask(vec![("x-llm-d-model-name-rewrite", "r")]), now, &mut Span::off()).await;
    assert_eq!(asked.unwrap_err().reason, Reason::DecodersBusy);
    drop(taken);
    let corrupt = director.handle(ask(vec![]), now, &mut Span::off()).await.unwrap_err();
    assert_eq!(corrupt.message, "content-encoding zstd: the body cannot be decoded");
}

#[test]
fn a_decoded_body_counts_in_the_bound_of_all_bodies_as_long_as_it_is_held_and_no_decoder_waits_for_it() {
    let director = director(&[8000]);
    let text = format!(r#"{{"model":"alias","prompt":"{}"}}"#, "0123456789".repeat(100_000));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
    let mut padded = gzip.finish().unwrap();
    padded.resize(padded.len().max(20_000), 0);
    let ask = |encoding: &'static str, rewrite: &'static str, body: &[u8]| Ask {
        headers: Headers::from([("content-encoding", encoding), ("x-llm-d-model-name-rewrite", rewrite)]),
        body: Bytes::copy_from_slice(body),
        body_seen: BodySeen::Whole,
        hint: SubsetHint::Absent,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let handle =
        |director: &Director, ask| runtime.block_on(director.handle(ask, Instant::now(), &mut Span::off()));
    let untouched = handle(&director, ask("gzip", "", &padded)).unwrap();
    assert_eq!((untouched.body_changed, director.parts.budget.used()), (false, 0));
    let routed = handle(&director, ask("gzip", "real", &padded)).unwrap();
    assert!(routed.body_changed);
    let held = director.parts.budget.used();
    assert!(held as usize >= text.len() && held as usize <= text.len() + (64 << 10), "{held}");
    assert_eq!(director.decoders.available_permits(), 4);
    drop(routed);
    assert_eq!(director.parts.budget.used(), 0);

    let mut small = parts(&[8000], &Parsers::default());
    small.budget = Arc::new(BodyBudget::new(500_000));
    let small = Director::new(small);
    for rewrite in ["", "real"] {
        let refusal = handle(&small, ask("gzip", rewrite, &padded)).unwrap_err();
        assert_eq!(refusal.reason, Reason::BuffersFull);
        assert!(refusal.message.ends_with("exceed the limit of 500000 bytes"), "{refusal}");
        assert_eq!((small.parts.budget.used(), small.decoders.available_permits()), (0, 4));
    }
}

#[test]
fn a_zstd_body_with_a_window_of_gigabytes_goes_on_unread() {
    let director = director(&[8000]);
    let body = Bytes::from_static(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00]);
    let headers = Headers::from([("content-encoding", "zstd")]);
    let ask = Ask { headers, body: body.clone(), body_seen: BodySeen::Whole, hint: SubsetHint::Absent };
    assert_eq!(handle(&director, ask).unwrap().body.concat(), body);
}
