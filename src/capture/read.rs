//! Reads a capture line by line. Files are read as streams, so a capture needs no more memory than its longest line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};

use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use serde::Deserialize;

use super::files;
use super::lines::{Line, SCHEMA};

/// The longest line, in bytes.
const LONGEST_LINE: u64 = 256 << 20;
/// The largest window of a compressed frame, in bytes. The frames that the writer makes have less than 1 MiB.
const LARGEST_WINDOW: u64 = 64 << 20;

/// Why a capture cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system returned an error.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// The folder has no file of a capture.
    #[error("{0}: there is no file of a capture (*.jsonl.zst)")]
    Nothing(PathBuf),
    /// A line is not a line of a capture.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// The file.
        file: PathBuf,
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong with the line.
        problem: String,
    },
}

/// Reads one file of a capture, or all files of a folder in their order.
pub struct Reader {
    files: VecDeque<PathBuf>,
    current: Option<Lines>,
    /// The files that could not be read to their end.
    torn: Vec<PathBuf>,
}

struct Lines {
    path: PathBuf,
    number: u64,
    text: BufReader<Frames>,
    /// The bytes of the present line.
    line: Vec<u8>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Reader {
    /// Opens a file or a folder.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = |error| ReadError::File(path.into(), error);
        let files: VecDeque<PathBuf> = if path.is_dir() {
            files::listed(path).map_err(file)?.into_iter().map(|(path, _)| path).collect()
        } else {
            std::fs::metadata(path).map_err(file)?;
            [path.to_owned()].into()
        };
        if files.is_empty() {
            return Err(ReadError::Nothing(path.into()));
        }
        Ok(Self { files, current: None, torn: Vec::new() })
    }

    /// The files that could not be read to their end, because the process that wrote them was killed or they are
    /// damaged.
    pub fn torn(&self) -> &[PathBuf] {
        &self.torn
    }

    /// Returns the next line, and `None` at the end. Lines of a kind that this version does not know are skipped.
    pub fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            if self.current.is_none() {
                let Some(path) = self.files.pop_front() else { return Ok(None) };
                self.current = Some(Lines::open(path)?);
            }
            let Some(lines) = &mut self.current else { return Ok(None) };
            match lines.next() {
                Ok(true) => {
                    if let Some(line) = lines.parse()? {
                        return Ok(Some(line));
                    }
                }
                Ok(false) => self.current = None,
                Err(_) => {
                    self.torn.push(lines.path.clone());
                    self.current = None;
                }
            }
        }
    }
}

impl Lines {
    fn open(path: PathBuf) -> Result<Self, ReadError> {
        let file = File::open(&path).map_err(|error| ReadError::File(path.clone(), error))?;
        let frames = Frames::new(BufReader::new(file));
        Ok(Self { path, number: 0, text: BufReader::with_capacity(1 << 16, frames), line: Vec::new() })
    }

    /// Reads the next line. Returns false at the end of the file.
    fn next(&mut self) -> io::Result<bool> {
        self.line.clear();
        let mut bounded = (&mut self.text).take(LONGEST_LINE);
        let read = bounded.read_until(b'\n', &mut self.line)?;
        self.number += 1;
        Ok(read > 0)
    }

    fn parse(&self) -> Result<Option<Line>, ReadError> {
        #[derive(Deserialize)]
        struct Kind<'a> {
            kind: &'a str,
        }
        let wrong = |problem: String| ReadError::Line { file: self.path.clone(), line: self.number, problem };
        let told = |error: serde_json::Error| wrong(format!("no line of a capture: {error}"));
        let line = self.line.as_slice();
        let kind: Kind<'_> = serde_json::from_slice(line).map_err(told)?;
        let read = match kind.kind {
            "start" => Line::Start(serde_json::from_slice(line).map_err(told)?),
            "config" => Line::Config(serde_json::from_slice(line).map_err(told)?),
            "pool" => Line::Pool(serde_json::from_slice(line).map_err(told)?),
            "decision" => Line::Decision(serde_json::from_slice(line).map_err(told)?),
            "answer" => Line::Answer(serde_json::from_slice(line).map_err(told)?),
            "first_byte" => Line::FirstByte(serde_json::from_slice(line).map_err(told)?),
            "outcome" => Line::Outcome(serde_json::from_slice(line).map_err(told)?),
            "gap" => Line::Gap(serde_json::from_slice(line).map_err(told)?),
            _ => return Ok(None),
        };
        if let Line::Start(start) = &read
            && start.schema > SCHEMA
        {
            let theirs = start.schema;
            return Err(wrong(format!("schema {theirs} is newer than {SCHEMA}, which this version reads")));
        }
        Ok(Some(read))
    }
}

/// The content of compressed frames that follow each other.
struct Frames {
    source: Option<BufReader<File>>,
    frame: Option<StreamingDecoder<BufReader<File>, FrameDecoder>>,
}

impl Frames {
    fn new(source: BufReader<File>) -> Self {
        Self { source: Some(source), frame: None }
    }

    /// Opens the next frame. Returns false if there is none.
    fn open(&mut self) -> io::Result<bool> {
        let Some(mut source) = self.source.take() else { return Ok(false) };
        if source.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let frame = StreamingDecoder::new_with_max_window_size(source, LARGEST_WINDOW)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        self.frame = Some(frame);
        Ok(true)
    }
}

impl Read for Frames {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.frame {
                Some(frame) => {
                    let read = frame.read(out)?;
                    if read > 0 || out.is_empty() {
                        return Ok(read);
                    }
                    self.source = self.frame.take().map(StreamingDecoder::into_inner);
                }
                None => {
                    if !self.open()? {
                        return Ok(0);
                    }
                }
            }
        }
    }
}
