//! How much a capture may take.

use std::path::PathBuf;
use std::time::Duration;

/// Where captures go, and what they may take there.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// The folder. It is made if it does not exist.
    pub folder: PathBuf,
    /// Bytes of all files of captures in the folder. The oldest ones go first.
    pub disk: u64,
    /// Bytes of one file.
    pub file: u64,
}

/// When a capture ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// After this time.
    pub time: Option<Duration>,
    /// After this many bytes on disk.
    pub bytes: Option<u64>,
}
