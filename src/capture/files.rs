//! The files of captures: their names, their rotation, and the bound on the disk space.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The beginning and the end of the name of each capture file.
const PREFIX: &str = "capture-";
pub(super) const SUFFIX: &str = ".jsonl.zst";
/// The smallest number of files into which the disk space is divided, so that an old file can be removed.
const SHARES: u64 = 4;

/// The files of one capture, and the files of earlier captures in the same folder.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    name: String,
    disk: u64,
    file: u64,
    number: u64,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Files {
    /// Makes the files of the capture `name`. The folder is made if it does not exist. `disk` bounds the bytes of all
    /// files, and `file` those of one file.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be made or written to.
    pub(super) fn new(folder: &Path, name: &str, disk: u64, file: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let file = file.min(disk / SHARES).max(1);
        let files = Self { folder: folder.into(), name: name.into(), disk, file, number: 0, current: None };
        let probe = folder.join(format!("{PREFIX}{name}.probe"));
        private().open(&probe)?;
        fs::remove_file(probe)?;
        Ok(files)
    }

    /// True if the next bytes begin a new file.
    pub(super) fn at_begin(&self) -> bool {
        self.current.as_ref().is_none_or(|current| current.bytes >= self.file)
    }

    /// The number, from 1, of the file that gets the next bytes.
    pub(super) fn next_number(&self) -> u64 {
        if self.at_begin() { self.number + 1 } else { self.number }
    }

    /// Appends a whole frame. Then removes the oldest files until all files together are within their bound. Returns
    /// the bytes of all files.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<u64> {
        if self.at_begin() {
            self.number += 1;
            let path = self.folder.join(format!("{PREFIX}{}-{:06}{SUFFIX}", self.name, self.number));
            let file = private().open(&path)?;
            self.current = Some(Current { path, file, bytes: 0 });
        }
        let Some(current) = &mut self.current else { return Ok(0) };
        current.file.write_all(frame)?;
        current.bytes += frame.len() as u64;
        let keep = current.path.clone();
        self.make_room(&keep)
    }

    fn make_room(&self, keep: &Path) -> io::Result<u64> {
        let mut files = listed(&self.folder)?;
        let mut total: u64 = files.iter().map(|(_, bytes)| bytes).sum();
        files.reverse();
        while total > self.disk
            && let Some((path, bytes)) = files.pop()
        {
            if path != keep {
                fs::remove_file(&path)?;
                total -= bytes;
            }
        }
        Ok(total)
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    options
}

/// The capture files in a folder with their sizes in bytes, the oldest first.
pub(super) fn listed(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX));
        if is_ours && entry.file_type()?.is_file() {
            files.push((entry.path(), entry.metadata().map_or(0, |metadata| metadata.len())));
        }
    }
    files.sort();
    Ok(files)
}
