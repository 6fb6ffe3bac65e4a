//! Encodings: what decodes, and that a bomb is stopped.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;

/// `text` by every encoder that there is here.
fn encoded(text: &[u8]) -> Vec<(ContentEncoding, Vec<u8>)> {
    let level = Compression::best();
    let mut gzip = GzEncoder::new(Vec::new(), level);
    gzip.write_all(text).unwrap();
    let mut zlib = ZlibEncoder::new(Vec::new(), level);
    zlib.write_all(text).unwrap();
    let mut raw = DeflateEncoder::new(Vec::new(), level);
    raw.write_all(text).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest);
    vec![
        (ContentEncoding::Gzip, gzip.finish().unwrap()),
        (ContentEncoding::Deflate, zlib.finish().unwrap()),
        (ContentEncoding::Deflate, raw.finish().unwrap()),
        (ContentEncoding::Zstd, zstd),
    ]
}

/// `{"model":"m","max_tokens":5}` by the reference implementation of brotli, stored.
fn brotli(text: &[u8]) -> Vec<u8> {
    // A stream of window 16 with one uncompressed meta-block, then an empty last one.
    let length = text.len() - 1;
    let bits = (length as u32) << 4;
    // WBITS = 0 (one bit), ISLAST = 0, MNIBBLES = 0 (four nibbles), MLEN - 1 in 16 bits, ISUNCOMPRESSED = 1.
    let head = u32::from(true) << 20 | bits;
    let mut out = vec![head as u8, (head >> 8) as u8, (head >> 16) as u8];
    out.extend_from_slice(text);
    out.push(0b11);
    out
}

/// The decoded body in one piece.
fn decode(encoding: ContentEncoding, body: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    let mut plain = Vec::new();
    encoding.decode(body, limit, &mut |piece| {
        plain.extend_from_slice(piece);
        true
    })?;
    Ok(plain)
}

#[test]
fn a_sink_without_room_ends_the_decoding_at_once() {
    for (encoding, body) in encoded(&vec![b' '; 4 << 20]) {
        let mut taken = 0;
        let done = encoding.decode(&body, 64 << 20, &mut |piece| {
            taken += piece.len();
            taken <= 200_000
        });
        assert_eq!(done, Err(DecodeError::NoRoom), "{encoding:?}");
        assert!(taken <= 200_000 + STEP, "{encoding:?} {taken}");
    }
}

#[test]
fn a_brotli_stream_with_a_window_of_a_gigabyte_is_not_decoded() {
    // Large windows: the first byte is 0x11, the next has the bits of the window.
    for first in [0x11, 0x91] {
        let large = [first, 30, 0, 0, 0, 0x03];
        assert_eq!(decode(ContentEncoding::Brotli, &large, 1 << 20), Err(DecodeError::Window));
    }
}

#[test]
fn every_encoding_is_taken_off() {
    let text = br#"{"model":"m","max_tokens":5,"prompt":"a b a b a b a b a b"}"#;
    for (encoding, body) in encoded(text).into_iter().chain([(ContentEncoding::Brotli, brotli(text))]) {
        assert_eq!(decode(encoding, &body, 1 << 20).unwrap(), text, "{encoding:?}");
    }
}

#[test]
fn a_bomb_is_stopped_at_its_ratio_and_at_the_limit() {
    let zeros = vec![b' '; 64 << 20];
    for (encoding, body) in encoded(&zeros) {
        assert!(body.len() < 100_000, "{encoding:?} {}", body.len());
        let ratio = decode(encoding, &body, 1 << 30);
        assert_eq!(ratio, Err(DecodeError::Ratio), "{encoding:?}");
        assert_eq!(decode(encoding, &body, 1000), Err(DecodeError::TooLarge(1000)), "{encoding:?}");
    }
}

#[test]
fn a_small_body_may_grow_to_a_megabyte() {
    let zeros = vec![b' '; 1 << 20];
    for (encoding, body) in encoded(&zeros) {
        assert_eq!(decode(encoding, &body, usize::MAX).unwrap().len(), zeros.len(), "{encoding:?}");
    }
}

#[test]
fn a_zstd_window_of_gigabytes_is_refused_before_it_is_allocated() {
    // Magic, a frame header with a window descriptor of the largest exponent, no block.
    let body = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
    let refused = decode(ContentEncoding::Zstd, &body, 1 << 30);
    assert_eq!(refused, Err(DecodeError::Window));
}

#[test]
fn several_members_and_frames_are_one_body() {
    for (encoding, one) in
        encoded(b"{\"a\":").into_iter().zip(encoded(b"1}")).filter_map(|(first, second)| {
            let several = matches!(first.0, ContentEncoding::Gzip | ContentEncoding::Zstd);
            several.then(|| (first.0, [first.1, second.1].concat()))
        })
    {
        assert_eq!(decode(encoding, &one, 100).unwrap(), b"{\"a\":1}", "{encoding:?}");
    }
}

#[test]
fn headers_name_one_encoding_or_it_is_not_known() {
    for (values, expected) in [
        (&[][..], Encoded::Plain),
        (&["identity", ""], Encoded::Plain),
        (&["gzip"], Encoded::By(ContentEncoding::Gzip)),
        (&["identity, X-GZIP"], Encoded::By(ContentEncoding::Gzip)),
        (&["br"], Encoded::By(ContentEncoding::Brotli)),
        (&["lz4"], Encoded::Unknown("lz4".to_owned())),
        (&["gzip, br"], Encoded::Unknown("gzip, br".to_owned())),
        (&["gzip", "zstd"], Encoded::Unknown("gzip, zstd".to_owned())),
    ] {
        let mut headers = Headers::new();
        for value in values {
            headers.push("content-encoding".into(), value.as_bytes().to_vec().into());
        }
        assert_eq!(content_encoding(&headers), expected);
    }
}

#[test]
fn a_body_of_countless_empty_members_or_frames_is_given_up() {
    let bodies = encoded(b"");
    for encoding in [ContentEncoding::Gzip, ContentEncoding::Zstd] {
        let (_, empty) = bodies.iter().find(|(kind, _)| *kind == encoding).unwrap();
        assert_eq!(decode(encoding, &empty.repeat(10_000), 1 << 20), Ok(Vec::new()), "{encoding:?}");
        let refused = Err(DecodeError::Frames(encoding));
        assert_eq!(decode(encoding, &empty.repeat(20_000), 1 << 20), refused, "{encoding:?}");
    }
}

#[test]
fn frames_and_zeros_that_decoders_pass_over_are_passed_over() {
    let text = br#"{"model":"m"}"#;
    let skippable = [&0x184d_2a5f_u32.to_le_bytes()[..], &3_u32.to_le_bytes(), b"abc"].concat();
    let find = |wanted| encoded(text).into_iter().find(|(encoding, _)| *encoding == wanted).unwrap().1;
    let (gzip, zstd) = (find(ContentEncoding::Gzip), find(ContentEncoding::Zstd));
    for (encoding, body) in [
        (ContentEncoding::Zstd, [&skippable[..], &zstd].concat()),
        (ContentEncoding::Zstd, [&zstd[..], &skippable, &skippable].concat()),
        (ContentEncoding::Gzip, [&gzip[..], &[0; 5]].concat()),
        (ContentEncoding::Gzip, [&gzip[..], &[0; 1000]].concat()),
    ] {
        assert_eq!(decode(encoding, &body, 100).as_deref(), Ok(&text[..]), "{encoding:?}");
    }
    for (encoding, body) in [
        (ContentEncoding::Zstd, skippable[..10].to_vec()),
        (ContentEncoding::Zstd, [&zstd[..], &skippable[..6]].concat()),
        (ContentEncoding::Zstd, b"not zstd".to_vec()),
        (ContentEncoding::Gzip, [&gzip[..], b"x"].concat()),
        (ContentEncoding::Gzip, vec![0; 100]),
    ] {
        let fault = decode(encoding, &body, 100).unwrap_err().to_string();
        let name = encoding.name();
        assert_eq!(fault, format!("content-encoding {name}: the body cannot be decoded"));
    }
}

#[test]
fn honest_text_that_repeats_is_no_bomb() {
    let turn =
        r#"{"role":"user","content":"Please summarize the document above in three short sentences."},"#;
    let turns: Vec<String> = (0..5700).map(|number| format!("{}{number},", turn.repeat(8))).collect();
    let text = turns.concat();
    let gzip = &encoded(text.as_bytes())[0];
    assert!(gzip.1.len() * 50 < text.len(), "{}", gzip.1.len());
    assert_eq!(decode(gzip.0, &gzip.1, 64 << 20).unwrap().len(), text.len());
}

proptest! {
    #[test]
    fn any_text_survives(text in proptest::collection::vec(any::<u8>(), 1..5000)) {
        for (encoding, body) in encoded(&text).into_iter().chain([(ContentEncoding::Brotli, brotli(&text))]) {
            let decoded = decode(encoding, &body, 10_000).unwrap();
            prop_assert_eq!(&decoded, &text);
        }
    }

    #[test]
    fn damaged_bodies_end_within_the_bound(
        text in "[ab]{1,400}",
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for (encoding, mut body) in encoded(text.as_bytes()).into_iter().chain([(ContentEncoding::Brotli, brotli(text.as_bytes()))]) {
            for (index, byte) in &damage {
                let index = index.index(body.len());
                body[index] = *byte;
            }
            if let Ok(decoded) = decode(encoding, &body, 2000) {
                prop_assert!(decoded.len() <= 2000);
            }
        }
    }
}
