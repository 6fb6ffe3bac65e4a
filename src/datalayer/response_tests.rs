use proptest::prelude::*;

use super::*;

/// Reads `bytes` in pieces of `step`. Returns status, body, whether the end was reached, and what was left over.
fn read(bytes: &[u8], step: usize) -> Result<(Head, Vec<u8>, bool, usize), ResponseError> {
    let mut reader = ResponseReader::default();
    let mut body = Vec::new();
    let mut used = 0;
    for piece in bytes.chunks(step.max(1)) {
        let mut input = piece;
        loop {
            match reader.next(&mut input)? {
                Event::NeedMore => break,
                Event::Head => {}
                Event::Body(part) => body.extend_from_slice(part),
                Event::End => {
                    used += piece.len() - input.len();
                    return Ok((reader.head().clone(), body, true, bytes.len() - used));
                }
            }
        }
        used += piece.len();
    }
    let ended = reader.ends_with_connection();
    Ok((reader.head().clone(), body, ended, 0))
}

fn check(text: &str, status: u16, body: &str, ended: bool) {
    for step in [1, 2, 3, 7, 4096] {
        let (head, found, end, _) = read(text.as_bytes(), step).unwrap();
        assert_eq!(
            (head.status, std::str::from_utf8(&found).unwrap(), end),
            (status, body, ended),
            "{step} {text}"
        );
    }
}

#[test]
fn a_body_with_a_length_ends_there() {
    check("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", true);
    check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, "", true);
    check("HTTP/1.1 200\nContent-Length:5\n\nhello", 200, "hello", true);
    check("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", 200, "hello", false);
}

#[test]
fn chunks_are_joined() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&format!("{head}5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"), 200, "hello world", true);
    check(&format!("{head}0\r\nTrailer: x\r\n\r\n"), 200, "", true);
    check(&format!("{head}A\r\n0123"), 200, "0123", false);
}

#[test]
fn without_length_the_connection_ends_the_body() {
    check("HTTP/1.0 200 OK\r\n\r\nall of it", 200, "all of it", true);
}

#[test]
fn an_interim_answer_is_passed_over() {
    check(
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        200,
        "x",
        true,
    );
}

#[test]
fn an_answer_without_body_ends_with_its_head() {
    check("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true);
}

#[test]
fn what_follows_a_response_is_left_alone() {
    let (_, body, ended, left) = read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP", 4096).unwrap();
    assert_eq!((body.as_slice(), ended, left), (b"ok".as_slice(), true, 4));
}

#[test]
fn a_connection_is_kept_unless_version_or_header_say_otherwise() {
    let keep = |text: &str| read(text.as_bytes(), 4096).unwrap().0.keep_alive;
    assert!(keep("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    assert!(!keep("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n"));
    assert!(!keep("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
    assert!(keep("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"));
    assert!(!keep("HTTP/1.1 200 OK\r\n\r\n"));
}

#[test]
fn redirects_and_encodings_are_seen() {
    let text =
        b"HTTP/1.1 307 x\r\nLocation: /metrics/\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n";
    let head = read(text, 4096).unwrap().0;
    assert_eq!((head.location.as_deref(), head.encoded), (Some("/metrics/"), true));
}

#[test]
fn what_is_no_response_is_refused() {
    for (text, error) in [
        ("SSH-2.0-x\r\n\r\n", ResponseError::StatusLine),
        ("HTTP/2 200\r\n\r\n", ResponseError::StatusLine),
        ("HTTP/1.1 20\r\n\r\n", ResponseError::StatusLine),
        ("HTTP/1.1 2000\r\n\r\n", ResponseError::StatusLine),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ResponseError::Header),
        ("HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n", ResponseError::Header),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ResponseError::ContentLength),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", ResponseError::ContentLength),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ResponseError::TransferEncoding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ResponseError::Chunk),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n", ResponseError::TooLong),
    ] {
        assert_eq!(read(text.as_bytes(), 4096).unwrap_err(), error, "{text}");
    }
}

#[test]
fn an_endless_head_is_refused() {
    let text = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(10_000));
    assert_eq!(read(text.as_bytes(), 4096).unwrap_err(), ResponseError::TooLong);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..64) {
        let _ = read(&bytes, step);
        for head in ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] {
            let _ = read(&[head.as_bytes(), &bytes].concat(), step);
        }
    }

    #[test]
    fn a_chunked_body_reads_back_however_it_is_cut(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8), step in 1usize..80) {
        let mut text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            text.extend(format!("{:x}\r\n", chunk.len()).bytes());
            text.extend(chunk);
            text.extend(b"\r\n");
        }
        text.extend(b"0\r\n\r\n");
        let (_, body, ended, left) = read(&text, step).unwrap();
        prop_assert_eq!((body, ended, left), (chunks.concat(), true, 0));
    }
}
