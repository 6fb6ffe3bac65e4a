//! The settings of captures, and the limits of one capture.

use std::path::PathBuf;
use std::time::Duration;

/// Where captures are written, and how much disk space they may take.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// The folder, which is made if it does not exist.
    pub folder: PathBuf,
    /// The most bytes of all capture files in the folder. The oldest files are removed first.
    pub disk: u64,
    /// The most bytes of one file.
    pub file: u64,
}

/// When a capture ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The time after which it ends.
    pub time: Option<Duration>,
    /// The bytes on disk after which it ends.
    pub bytes: Option<u64>,
}
