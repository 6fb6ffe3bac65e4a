//! `--state-dir`: what a replica knows, kept for the one that comes after it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::peers::Peers;

/// Name of the file.
const FILE: &str = "pointsman-state";
/// Largest file that is read.
const LARGEST: u64 = 256 << 20;
/// Age beyond which a file is not used: what model servers cached then is gone.
const OLDEST: Duration = Duration::from_mins(15);

/// Takes over what the file says, and removes it. A file that cannot be used costs a line in the log.
pub(super) fn restore(folder: &Path, peers: &Peers) {
    let path = folder.join(FILE);
    let data = match std::fs::metadata(&path) {
        Ok(data) => data,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return tracing::warn!(path = %path.display(), %error, "state file cannot be read"),
    };
    let age = data.modified().ok().and_then(|written| SystemTime::now().duration_since(written).ok());
    if data.len() > LARGEST || age.is_some_and(|age| age > OLDEST) {
        tracing::warn!(path = %path.display(), bytes = data.len(), ?age, "state file is too large or too old");
    } else {
        let read = std::fs::read(&path).map_err(|error| error.to_string());
        match read.and_then(|bytes| peers.restore(&bytes)) {
            Ok(taken) => tracing::info!(path = %path.display(), assignments = taken, "state file taken over"),
            Err(error) => tracing::warn!(path = %path.display(), error, "state file cannot be used"),
        }
    }
    // It tells of one end. Whoever breaks down later must not find it again.
    let _ = std::fs::remove_file(&path);
}

/// Writes what this replica knows.
pub(super) fn save(folder: &Path, peers: &Peers) {
    let bytes = peers.save();
    let (path, next): (PathBuf, PathBuf) = (folder.join(FILE), folder.join(format!("{FILE}.next")));
    match std::fs::write(&next, &bytes).and_then(|()| std::fs::rename(&next, &path)) {
        Ok(()) => tracing::info!(path = %path.display(), bytes = bytes.len(), "state file written"),
        Err(error) => tracing::warn!(path = %path.display(), %error, "state file cannot be written"),
    }
}
