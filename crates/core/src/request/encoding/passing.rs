//! Taking the content-encoding off a request body that passes by in chunks, to look for its model.

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{ContentEncoding, ZSTD_WINDOW, has_large_window};
use crate::request::inflate::{Inflater, NotDecoded, is_too_much};

/// Bytes that are decoded in one step.
const STEP: usize = 16 << 10;
/// Largest header of a zstd frame in bytes (RFC 8878, section 3.1.1).
const FRAME_HEADER: usize = 18;
/// Largest block of a zstd frame in bytes.
const BLOCK: usize = 128 << 10;

/// Decodes one body. Decoded bytes are given as they come and not kept: 1 MiB at most, or 50 times the bytes that came.
///
/// Memory: the window of the encoding as far as it is filled, and of zstd a block that is not whole yet.
pub struct PassingDecoder {
    source: Source,
    came: u64,
    went: u64,
}

enum Source {
    Inflate(Box<Inflater>),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(Box<Zstd>),
    /// The rest is not read.
    Over,
}

impl fmt::Debug for PassingDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassingDecoder").field("came", &self.came).finish_non_exhaustive()
    }
}

/// Where decoded bytes go, and how many there may be.
struct Sink<'s> {
    give: &'s mut dyn FnMut(&[u8]),
    came: u64,
    went: &'s mut u64,
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), NotDecoded> {
        *self.went += bytes.len() as u64;
        if is_too_much(self.came, *self.went) {
            return Err(NotDecoded::Ratio);
        }
        (self.give)(bytes);
        Ok(())
    }
}

impl PassingDecoder {
    /// A decoder for one body.
    pub fn new(encoding: ContentEncoding) -> Self {
        let source = match encoding {
            ContentEncoding::Gzip => Source::Inflate(Box::new(Inflater::gzip())),
            ContentEncoding::Deflate => Source::Inflate(Box::new(Inflater::deflate())),
            ContentEncoding::Brotli => {
                let alloc = StandardAlloc::default;
                Source::Brotli(Box::new(BrotliState::new(alloc(), alloc(), alloc())))
            }
            ContentEncoding::Zstd => Source::Zstd(Box::default()),
        };
        Self { source, came: 0, went: 0 }
    }

    /// Bytes that it may hold: what came and went so far, as long as no window is full.
    pub fn held(&self) -> u64 {
        self.came.saturating_add(self.went)
    }

    /// Takes the next bytes of the body, the last with `end`, and gives what they decode to. A body that needs a larger
    /// window than its encoding allows is not read.
    pub fn feed(&mut self, chunk: &[u8], end: bool, give: &mut dyn FnMut(&[u8])) -> Result<(), NotDecoded> {
        let first = self.came == 0;
        self.came += chunk.len() as u64;
        let mut sink = Sink { give, came: self.came, went: &mut self.went };
        let goes_on = match &mut self.source {
            Source::Over => false,
            Source::Inflate(inflater) => {
                inflater.feed(chunk, |bytes| {
                    *sink.went += bytes.len() as u64;
                    (sink.give)(bytes);
                })?;
                true
            }
            Source::Brotli(_) if first && has_large_window(chunk) => false,
            Source::Brotli(state) => brotli(state, chunk, &mut sink)?,
            Source::Zstd(zstd) => zstd.feed(chunk, end, &mut sink)?,
        };
        if !goes_on {
            self.source = Source::Over;
        }
        Ok(())
    }
}

/// False behind the end.
fn brotli(
    state: &mut BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    chunk: &[u8],
    sink: &mut Sink<'_>,
) -> Result<bool, NotDecoded> {
    let (mut left, mut at) = (chunk.len(), 0);
    let mut step = [0; STEP];
    loop {
        let (mut room, mut written, mut total) = (STEP, 0, 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut at,
            chunk,
            &mut room,
            &mut written,
            &mut step,
            &mut total,
            state,
        );
        sink.take(step.get(..written).unwrap_or_default())?;
        match result {
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::NeedsMoreInput => return Ok(true),
            BrotliResult::ResultSuccess => return Ok(false),
            BrotliResult::ResultFailure => return Err(NotDecoded::Corrupt),
        }
    }
}

/// Frames of zstd. The library decodes whole blocks: what is not whole is held.
#[derive(Default)]
struct Zstd {
    decoder: FrameDecoder,
    held: Vec<u8>,
    place: Place,
    /// A checksum follows the last block of the frame.
    checksum: bool,
}

#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Header,
    Block,
    /// In a skippable frame of which this many bytes are to come.
    Skipping(usize),
}

impl Zstd {
    /// False if the body needs too large a window.
    fn feed(&mut self, chunk: &[u8], end: bool, sink: &mut Sink<'_>) -> Result<bool, NotDecoded> {
        self.held.extend_from_slice(chunk);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        loop {
            match self.place {
                Place::Skipping(bytes) => {
                    let skipped = bytes.min(rest.len());
                    rest = rest.get(skipped..).unwrap_or_default();
                    self.place =
                        if skipped == bytes { Place::Header } else { Place::Skipping(bytes - skipped) };
                    if skipped < bytes {
                        break;
                    }
                }
                Place::Header if rest.is_empty() || (rest.len() < FRAME_HEADER && !end) => break,
                Place::Header => {
                    if let Some(length) = skippable(rest) {
                        rest = rest.get(8..).unwrap_or_default();
                        self.place = Place::Skipping(length);
                        continue;
                    }
                    self.checksum = rest.get(4).is_some_and(|descriptor| descriptor & 4 != 0);
                    self.decoder.set_max_window_size(ZSTD_WINDOW);
                    match self.decoder.reset(&mut rest) {
                        Ok(()) => self.place = Place::Block,
                        Err(FrameDecoderError::WindowSizeTooBig { .. }) => return Ok(false),
                        Err(_) => return Err(NotDecoded::Corrupt),
                    }
                }
                Place::Block => {
                    let Some(length) = self.block(rest)? else { break };
                    if rest.len() < length {
                        break;
                    }
                    let one = BlockDecodingStrategy::UptoBlocks(1);
                    self.decoder.decode_blocks(&mut rest, one).map_err(|_| NotDecoded::Corrupt)?;
                    self.collect(sink)?;
                    if self.decoder.is_finished() {
                        self.place = Place::Header;
                    }
                }
            }
        }
        self.held = rest.to_vec();
        Ok(true)
    }

    /// Length of the block that comes next, with its header and the checksum behind it.
    fn block(&self, rest: &[u8]) -> Result<Option<usize>, NotDecoded> {
        let Some(&[low, middle, high]) = rest.first_chunk::<3>() else { return Ok(None) };
        let header = u32::from_le_bytes([low, middle, high, 0]);
        let size = (header >> 3) as usize;
        // A block of one repeated byte holds that byte alone.
        let size = if header >> 1 & 3 == 1 { 1 } else { size };
        if size > BLOCK {
            return Err(NotDecoded::Corrupt);
        }
        let checksum = if header & 1 == 1 && self.checksum { 4 } else { 0 };
        Ok(Some(3 + size + checksum))
    }

    fn collect(&mut self, sink: &mut Sink<'_>) -> Result<(), NotDecoded> {
        let mut step = [0; STEP];
        loop {
            let count = std::io::Read::read(&mut self.decoder, &mut step).map_err(|_| NotDecoded::Corrupt)?;
            if count == 0 {
                return Ok(());
            }
            sink.take(step.get(..count).unwrap_or_default())?;
        }
    }
}

/// Length of what a skippable frame holds, if one begins here.
fn skippable(rest: &[u8]) -> Option<usize> {
    let (magic, rest) = rest.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*magic) & 0xffff_fff0 != 0x184d_2a50 {
        return None;
    }
    rest.first_chunk::<4>().map(|length| u32::from_le_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::*;

    fn text(numbers: u32) -> Vec<u8> {
        (0..numbers)
            .flat_map(|number| format!("{} ", number.wrapping_mul(7919) % 100_003).into_bytes())
            .collect()
    }

    fn decoded(encoding: ContentEncoding, body: &[u8], size: usize) -> Result<Vec<u8>, NotDecoded> {
        let mut decoder = PassingDecoder::new(encoding);
        let mut out = Vec::new();
        for chunk in body.chunks(size) {
            decoder.feed(chunk, false, &mut |bytes| out.extend_from_slice(bytes))?;
        }
        decoder.feed(&[], true, &mut |bytes| out.extend_from_slice(bytes))?;
        Ok(out)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(text).unwrap();
        gzip.finish().unwrap()
    }

    /// A brotli stream of this text in uncompressed blocks.
    fn brotli(text: &[u8]) -> Vec<u8> {
        // A window of 16 bits: one bit. Each block: not the last, four nibbles of length less one, uncompressed.
        let mut bits: Vec<bool> = vec![false];
        let mut bytes = Vec::new();
        for block in text.chunks(60_000) {
            bits.extend([false, false, false]);
            bits.extend((0..16).map(|bit| (block.len() - 1) >> bit & 1 == 1));
            bits.push(true);
            bytes.extend(packed(&mut bits));
            bytes.extend_from_slice(block);
        }
        bits.extend([true, true]);
        bytes.extend(packed(&mut bits));
        bytes
    }

    fn packed(bits: &mut Vec<bool>) -> Vec<u8> {
        let bytes =
            bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |sum, bit| sum << 1 | u8::from(*bit)));
        let bytes = bytes.collect();
        bits.clear();
        bytes
    }

    #[test]
    fn every_encoding_is_taken_off_wherever_the_chunks_end() {
        for text in [text(10), text(3000), text(60_000)] {
            let zstd = compress_to_vec(text.as_slice(), CompressionLevel::Fastest);
            let skipped = [&b"\x52\x2a\x4d\x18\x05\0\0\0skip!"[..], &zstd, &zstd].concat();
            let bodies = [
                (ContentEncoding::Gzip, gzip(&text), 1),
                (ContentEncoding::Brotli, brotli(&text), 1),
                (ContentEncoding::Zstd, zstd, 1),
                (ContentEncoding::Zstd, skipped, 2),
            ];
            for (encoding, body, times) in bodies {
                for size in [1, 7, 1000, body.len()] {
                    let decoded = decoded(encoding, &body, size).unwrap();
                    assert!(decoded == text.repeat(times), "{encoding:?} by {size}");
                }
            }
        }
    }

    #[test]
    fn what_becomes_far_larger_is_given_up() {
        let zeros = vec![0; 20 << 20];
        let zstd = compress_to_vec(zeros.as_slice(), CompressionLevel::Fastest);
        for (encoding, bomb) in [(ContentEncoding::Gzip, gzip(&zeros)), (ContentEncoding::Zstd, zstd)] {
            assert_eq!(decoded(encoding, &bomb, 1000), Err(NotDecoded::Ratio), "{encoding:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            start in prop_oneof![Just(&b"\x28\xb5\x2f\xfd"[..]), Just(&b"\x1f\x8b\x08"[..]), Just(&b""[..])],
            size in 1_usize..50,
        ) {
            use ContentEncoding::{Brotli, Deflate, Gzip, Zstd};
            for encoding in [Gzip, Deflate, Brotli, Zstd] {
                let _: Result<_, _> = decoded(encoding, &[start, &bytes].concat(), size);
            }
        }
    }
}
