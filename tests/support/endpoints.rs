//! The file that file discovery reads.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

/// An endpoints file in a folder of its own.
pub(crate) struct EndpointsFile {
    folder: TempDir,
}

impl EndpointsFile {
    /// A file with these servers.
    pub(crate) fn with<'a>(servers: impl IntoIterator<Item = (&'a str, SocketAddr)>) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap() };
        file.write(servers);
        file
    }

    /// A file with this text.
    pub(crate) fn of(text: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap() };
        file.write_text(text);
        file
    }

    /// Replaces the list, in one step.
    pub(crate) fn write<'a>(&self, servers: impl IntoIterator<Item = (&'a str, SocketAddr)>) {
        self.write_text(&Self::listed(servers));
    }

    /// The text of a file with these servers.
    pub(crate) fn listed<'a>(servers: impl IntoIterator<Item = (&'a str, SocketAddr)>) -> String {
        let mut servers = servers.into_iter().peekable();
        if servers.peek().is_none() {
            return "endpoints: []\n".to_owned();
        }
        let mut text = String::from("endpoints:\n");
        for (name, addr) in servers {
            writeln!(text, "- {{name: {name}, address: \"{}\", port: \"{}\"}}", addr.ip(), addr.port())
                .unwrap();
        }
        text
    }

    /// Replaces the file by this text, in one step.
    pub(crate) fn write_text(&self, text: &str) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, self.path()).unwrap();
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("endpoints.yaml")
    }
}
