//! `content-encoding`: which one a body has, and taking it off within bounds.

mod passing;

use std::io::Read;

use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::FrameDecoderError;

use super::headers::Headers;
pub use passing::PassingDecoder;

/// Bytes that any body may decode to, however small it came.
const RATIO_FLOOR: usize = 1 << 20;
/// Most decoded bytes for each byte that came, beyond the floor.
const MAX_RATIO: usize = 256;
/// Largest window of zstd, as RFC 9659 demands it of this content-encoding.
const ZSTD_WINDOW: u64 = 8 << 20;
/// Largest window of brotli (RFC 7932, section 9.1).
const BROTLI_WINDOW: u64 = 16 << 20;
/// Largest window of deflate.
const DEFLATE_WINDOW: u64 = 32 << 10;
/// Bytes that are decoded in one step.
const STEP: usize = 64 << 10;
/// Most members of a gzip body, and frames of a zstd body. Empty ones take a few bytes each, and as long as thousands
/// of bytes to decode.
const MOST_FRAMES: usize = 16_384;

/// A content-encoding that can be taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentEncoding {
    /// `gzip`, `x-gzip`.
    Gzip,
    /// `deflate`, with and without the header of zlib.
    Deflate,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

/// The encoding of a body, as its headers state it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// There is none.
    Plain,
    /// One that can be taken off.
    By(ContentEncoding),
    /// Another one, or several. The text is what the headers say, of which 64 bytes are kept.
    Unknown(String),
}

/// Why a body cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not what its content-encoding says.
    #[error("content-encoding {}: the body cannot be decoded", .0.name())]
    Corrupt(ContentEncoding),
    /// It needs a larger window than it is given.
    #[error("the window of the body exceeds what its content-encoding allows")]
    Window,
    /// The receiver of the decoded bytes has no room for them.
    #[error("there is no room for the decoded request body")]
    NoRoom,
    /// It becomes larger than a body may be.
    #[error("the decoded request body exceeds the limit of {0} bytes")]
    TooLarge(usize),
    /// It becomes far larger than it came.
    #[error("the decoded request body exceeds 1 MiB and {MAX_RATIO} times the bytes that came")]
    Ratio,
    /// Each of its members or frames costs some time, however little is in it.
    #[error("content-encoding {}: the body has more than {MOST_FRAMES} members or frames", .0.name())]
    Frames(ContentEncoding),
}

impl ContentEncoding {
    /// The token in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn of(token: &[u8]) -> Option<Self> {
        match token {
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            b"br" => Some(Self::Brotli),
            b"zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Most bytes that a body of `came` bytes may decode to, if bodies may have `limit` bytes.
    pub fn most(came: usize, limit: usize) -> usize {
        came.saturating_mul(MAX_RATIO).max(RATIO_FLOOR).min(limit)
    }

    /// Bytes that a decoder may hold beside its output: the window, as far as it is filled.
    pub fn window(self) -> u64 {
        match self {
            Self::Gzip | Self::Deflate => DEFLATE_WINDOW,
            Self::Brotli => BROTLI_WINDOW,
            Self::Zstd => ZSTD_WINDOW,
        }
    }

    /// Takes the encoding off `body` and gives the result to `sink`, in pieces of at most 64 KiB; a sink that has no
    /// room for a piece returns false. In all these are at most `limit` bytes, and beyond 1 MiB at most 256 times the
    /// bytes of `body`; no more than one piece is decoded beyond that.
    pub fn decode(
        self,
        body: &[u8],
        limit: usize,
        sink: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), DecodeError> {
        let most = Self::most(body.len(), limit);
        let mut output = Output { sink, length: 0, most, frames: 0, step: vec![0; STEP] };
        let done = match self {
            Self::Gzip => gzip(body, &mut output),
            Self::Deflate if has_zlib_header(body) => output.read(flate2::read::ZlibDecoder::new(body)),
            Self::Deflate => output.read(flate2::read::DeflateDecoder::new(body)),
            Self::Brotli if has_large_window(body) => Err(Stop::Window),
            Self::Brotli => output.read(brotli_decompressor::Decompressor::new(body, STEP)),
            Self::Zstd => zstd(body, &mut output),
        };
        match done {
            Ok(()) => Ok(()),
            Err(Stop::Full) if most == limit => Err(DecodeError::TooLarge(limit)),
            Err(Stop::Full) => Err(DecodeError::Ratio),
            Err(Stop::Corrupt) => Err(DecodeError::Corrupt(self)),
            Err(Stop::Window) => Err(DecodeError::Window),
            Err(Stop::NoRoom) => Err(DecodeError::NoRoom),
            Err(Stop::Frames) => Err(DecodeError::Frames(self)),
        }
    }
}

/// Why decoding stops before the end. What the decoders say of it is meant for their authors, and goes nowhere.
enum Stop {
    /// The bound is passed.
    Full,
    /// The sink has no room.
    NoRoom,
    Corrupt,
    Window,
    Frames,
}

/// Where decoded bytes go, up to a bound.
struct Output<'s> {
    sink: &'s mut dyn FnMut(&[u8]) -> bool,
    length: usize,
    most: usize,
    frames: usize,
    step: Vec<u8>,
}

impl Output<'_> {
    /// Reads to the end.
    fn read(&mut self, mut source: impl Read) -> Result<(), Stop> {
        self.frames += 1;
        if self.frames > MOST_FRAMES {
            return Err(Stop::Frames);
        }
        loop {
            let count = source.read(&mut self.step).map_err(|_| Stop::Corrupt)?;
            if count == 0 {
                return Ok(());
            }
            self.length += count;
            if self.length > self.most {
                return Err(Stop::Full);
            }
            if !(self.sink)(self.step.get(..count).unwrap_or_default()) {
                return Err(Stop::NoRoom);
            }
        }
    }
}

/// Reads all members of a gzip file. Zeros behind them are padding.
fn gzip(body: &[u8], output: &mut Output<'_>) -> Result<(), Stop> {
    let padding = body.iter().rev().take_while(|byte| **byte == 0).count();
    let mut rest = body;
    loop {
        output.read(flate2::bufread::GzDecoder::new(&mut rest))?;
        if rest.len() <= padding {
            return Ok(());
        }
    }
}

/// Reads all frames of a zstd stream. Skippable frames are passed over.
fn zstd(body: &[u8], output: &mut Output<'_>) -> Result<(), Stop> {
    let mut rest = body;
    if rest.is_empty() {
        return Err(Stop::Corrupt);
    }
    while !rest.is_empty() {
        if let Some(behind) = behind_skippable_frame(rest)? {
            rest = behind;
            continue;
        }
        let decoder = StreamingDecoder::new_with_max_window_size(&mut rest, ZSTD_WINDOW);
        output.read(decoder.map_err(|error| match error {
            FrameDecoderError::WindowSizeTooBig { .. } => Stop::Window,
            _ => Stop::Corrupt,
        })?)?;
    }
    Ok(())
}

/// What lies behind a skippable frame (RFC 8878, section 3.1.2); `None` if another frame comes next. A cut frame is
/// corrupt.
fn behind_skippable_frame(bytes: &[u8]) -> Result<Option<&[u8]>, Stop> {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    if u32::from_le_bytes(*magic) & 0xffff_fff0 != 0x184d_2a50 {
        return Ok(None);
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(Stop::Corrupt)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Stop::Corrupt)?;
    rest.get(length..).map(Some).ok_or(Stop::Corrupt)
}

/// True if a stream begins like one of brotli's extension with windows of up to 1 GiB, which is no content-encoding.
fn has_large_window(body: &[u8]) -> bool {
    body.first().is_some_and(|first| first & 0x7f == 0x11)
}

/// True if the first two bytes are the header of zlib; some clients leave it out.
fn has_zlib_header(body: &[u8]) -> bool {
    let Some(&[method, flags]) = body.first_chunk::<2>() else { return false };
    method & 0x0f == 8 && (u16::from(method) << 8 | u16::from(flags)) % 31 == 0
}

/// The encoding that the headers state for their body.
pub fn content_encoding(headers: &Headers) -> Encoded {
    let mut found = Encoded::Plain;
    let named = headers.iter().filter(|(name, _)| *name == "content-encoding");
    for token in named.flat_map(|(_, value)| value.split(|byte| *byte == b',')) {
        let token = token.trim_ascii().to_ascii_lowercase();
        if token.is_empty() || token == b"identity" {
            continue;
        }
        let text = || String::from_utf8_lossy(token.get(..64).unwrap_or(&token)).into_owned();
        found = match (found, ContentEncoding::of(&token)) {
            (Encoded::Plain, Some(encoding)) => Encoded::By(encoding),
            (Encoded::Plain, None) => Encoded::Unknown(text()),
            (Encoded::By(first), _) => Encoded::Unknown(format!("{}, {}", first.name(), text())),
            (unknown @ Encoded::Unknown(_), _) => unknown,
        };
    }
    found
}

#[cfg(test)]
mod tests;
