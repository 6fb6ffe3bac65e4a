//! HTTP/1.1 responses, read in pieces. Pure: bytes in, events out. Only what a scrape needs is understood.

use memchr::memchr;

/// Longest head (status line and headers), and longest trailer, in bytes.
const MAX_HEAD: usize = 32 * 1024;
/// Longest line that states a chunk's size, extensions included.
const MAX_CHUNK_LINE: usize = 4 * 1024;

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Target of a redirect.
    pub location: Option<String>,
    /// True if the body is compressed, or otherwise not plain.
    pub encoded: bool,
    /// True if the connection may serve another request after the body.
    pub keep_alive: bool,
}

/// The meaning of the next bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The input is used up.
    NeedMore,
    /// The head is complete; [`ResponseReader::head`] has it.
    Head,
    /// A piece of the body.
    Body(&'a [u8]),
    /// The response is complete. What is left of the input does not belong to it.
    End,
}

/// Bytes that are no HTTP/1.1 response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The status line is not one.
    #[error("status line is malformed")]
    StatusLine,
    /// A header line has no colon or an impossible name.
    #[error("header line is malformed")]
    Header,
    /// Content-Length is no number, or there are several different ones.
    #[error("content-length is malformed")]
    ContentLength,
    /// A transfer coding other than chunked.
    #[error("transfer-encoding is not supported")]
    TransferEncoding,
    /// A chunk does not keep to the format.
    #[error("chunk is malformed")]
    Chunk,
    /// Head, trailer or chunk line are longer than any server makes them.
    #[error("response head is too long")]
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Sized(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    UntilClose,
    End,
}

/// Reads one response after the other from one connection.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    /// The head, or the unfinished line of a chunk size or trailer.
    line: Vec<u8>,
    trailer: usize,
    head: Head,
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self { state: State::Head, line: Vec::new(), trailer: 0, head: Head::default() }
    }
}

impl ResponseReader {
    /// Prepares for the next response.
    pub fn reset(&mut self) {
        self.state = State::Head;
        self.line.clear();
        self.trailer = 0;
    }

    /// The head of the current response, complete after [`Event::Head`].
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// True if no byte of a response has come yet.
    pub fn is_untouched(&self) -> bool {
        self.state == State::Head && self.line.is_empty()
    }

    /// True if the response is complete, given that the connection has ended now. Only a response without length may
    /// end so.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::End)
    }

    /// Takes the next event from `input`, which moves on behind it.
    ///
    /// # Errors
    ///
    /// If the bytes are no response. The connection is of no use then.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Event<'a>, ResponseError> {
        loop {
            match self.state {
                State::End => return Ok(Event::End),
                State::Head => {
                    if !self.take_head(input)? {
                        return Ok(Event::NeedMore);
                    }
                    if self.start_body()? {
                        return Ok(Event::Head);
                    }
                }
                State::Sized(0) => self.state = State::End,
                State::Chunk(0) => self.state = State::ChunkEnd,
                _ if input.is_empty() => return Ok(Event::NeedMore),
                State::UntilClose => return Ok(Event::Body(std::mem::take(input))),
                State::Sized(left) => {
                    let body = split(input, left);
                    self.state = State::Sized(left - body.len() as u64);
                    return Ok(Event::Body(body));
                }
                State::Chunk(left) => {
                    let body = split(input, left);
                    self.state = State::Chunk(left - body.len() as u64);
                    return Ok(Event::Body(body));
                }
                State::ChunkEnd => {
                    if self.take_line(input, 2)? {
                        if !self.line.trim_ascii().is_empty() {
                            return Err(ResponseError::Chunk);
                        }
                        self.line.clear();
                        self.state = State::ChunkSize;
                    }
                }
                State::ChunkSize => {
                    if self.take_line(input, MAX_CHUNK_LINE)? {
                        let size = chunk_size(&self.line).ok_or(ResponseError::Chunk)?;
                        self.line.clear();
                        self.state = if size == 0 { State::Trailer } else { State::Chunk(size) };
                    }
                }
                State::Trailer => {
                    if self.take_line(input, MAX_HEAD)? {
                        self.trailer += self.line.len();
                        if self.trailer > MAX_HEAD {
                            return Err(ResponseError::TooLong);
                        }
                        if self.line.trim_ascii().is_empty() {
                            self.state = State::End;
                        }
                        self.line.clear();
                    }
                }
            }
        }
    }

    /// Collects the head. True when the empty line has come.
    fn take_head(&mut self, input: &mut &[u8]) -> Result<bool, ResponseError> {
        while !input.is_empty() {
            let whole = append_line(&mut self.line, input);
            if self.line.len() > MAX_HEAD {
                return Err(ResponseError::TooLong);
            }
            // A line that came in two pieces starts before this piece.
            let last = self.line[..self.line.len() - usize::from(whole)].rsplit(|byte| *byte == b'\n').next();
            let blank = last.is_none_or(|line| line.trim_ascii().is_empty());
            if whole && blank {
                if self.line.trim_ascii().is_empty() {
                    // Some servers send an empty line too much after a body.
                    self.line.clear();
                    continue;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Collects one line. True when it is complete.
    fn take_line(&mut self, input: &mut &[u8], limit: usize) -> Result<bool, ResponseError> {
        let whole = append_line(&mut self.line, input);
        if self.line.len() > limit { Err(ResponseError::TooLong) } else { Ok(whole) }
    }

    /// Reads the collected head. False if it was an interim one.
    fn start_body(&mut self) -> Result<bool, ResponseError> {
        let head = std::mem::take(&mut self.line);
        let result = self.parse_head(&head);
        self.line = head;
        self.line.clear();
        result
    }

    fn parse_head(&mut self, head: &[u8]) -> Result<bool, ResponseError> {
        let mut lines = head.split(|byte| *byte == b'\n');
        let (version, status) = status_line(lines.next().unwrap_or_default())?;
        if (100..200).contains(&status) && status != 101 {
            return Ok(false);
        }
        let mut parsed = Head { status, keep_alive: version >= 1, ..Head::default() };
        let mut length = None;
        let mut chunked = false;
        for line in lines {
            let line = line.trim_ascii_end();
            if line.is_empty() {
                continue;
            }
            let colon = memchr(b':', line).ok_or(ResponseError::Header)?;
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
                return Err(ResponseError::Header);
            }
            if name.eq_ignore_ascii_case(b"content-length") {
                let number = decimal(value).ok_or(ResponseError::ContentLength)?;
                if length.replace(number).is_some_and(|earlier| earlier != number) {
                    return Err(ResponseError::ContentLength);
                }
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                if !value.eq_ignore_ascii_case(b"chunked") || chunked {
                    return Err(ResponseError::TransferEncoding);
                }
                chunked = true;
            } else if name.eq_ignore_ascii_case(b"connection") {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        parsed.keep_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") && version == 0 {
                        parsed.keep_alive = true;
                    }
                }
            } else if name.eq_ignore_ascii_case(b"location") {
                parsed.location = std::str::from_utf8(value).ok().map(str::to_owned);
            } else if name.eq_ignore_ascii_case(b"content-encoding") {
                parsed.encoded = !value.is_empty() && !value.eq_ignore_ascii_case(b"identity");
            }
        }
        if status == 101 || (chunked && length.is_some()) {
            // Nobody asked to upgrade; and two statements about the end are a smuggling attempt or a bug.
            parsed.keep_alive = false;
        }
        self.state = match (status, chunked, length) {
            (204 | 304, ..) => State::End,
            (_, true, _) => State::ChunkSize,
            (_, false, Some(length)) => State::Sized(length),
            (_, false, None) => {
                parsed.keep_alive = false;
                State::UntilClose
            }
        };
        self.head = parsed;
        Ok(true)
    }
}

/// Moves bytes up to and including the next line feed. True if there was one.
fn append_line(line: &mut Vec<u8>, input: &mut &[u8]) -> bool {
    let end = memchr(b'\n', input);
    let (taken, rest) = input.split_at(end.map_or(input.len(), |at| at + 1));
    line.extend_from_slice(taken);
    *input = rest;
    end.is_some()
}

/// At most `len` bytes of the input's beginning, taken off it.
fn split<'a>(input: &mut &'a [u8], len: u64) -> &'a [u8] {
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(len);
    *input = rest;
    taken
}

/// Minor version and status of `HTTP/1.x nnn reason`.
fn status_line(line: &[u8]) -> Result<(u8, u16), ResponseError> {
    let parse = || {
        let rest = line.trim_ascii_end().strip_prefix(b"HTTP/1.")?;
        let (&minor, rest) = rest.split_first()?;
        let digits = rest.strip_prefix(b" ")?;
        let (code, reason) = digits.split_at_checked(3)?;
        let plausible = minor.is_ascii_digit() && reason.first().is_none_or(|byte| *byte == b' ');
        let code = decimal(code).filter(|code| plausible && *code >= 100)?;
        Some((minor - b'0', code as u16))
    };
    parse().ok_or(ResponseError::StatusLine)
}

fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Size that a chunk's first line states.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    u64::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| hex)?, 16).ok()
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
