//! A metrics page by the Python library that real model servers use.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::process::Process;

/// How the library is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Its own little server.
    Plain,
    /// As vLLM with one API process: one page that ignores filters, and one behind a slash that heeds them.
    Instrumented,
    /// As vLLM with several: a filtered page is empty.
    Multiprocess,
}

/// A running exporter.
pub(crate) struct Exporter {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Exporter {
    /// Starts one that says that this many requests wait.
    pub(crate) async fn start(form: Form, waiting: u32) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = root.join("target/venv-envoy/bin/python");
        assert!(python.exists(), "no Python packages at {}: run `make setup`", python.display());
        let folder = tempfile::tempdir().unwrap();
        let form = match form {
            Form::Plain => "plain",
            Form::Instrumented => "instrumented",
            Form::Multiprocess => "multiprocess",
        };
        let script = root.join("tests/support/exporter.py");
        let waiting = waiting.to_string();
        let args = [script.as_os_str(), form.as_ref(), waiting.as_ref(), folder.path().as_os_str()];
        let mut process = Process::start("exporter", &python, args);
        let port: u16 = process.line("port", |line| line.strip_prefix("port ")?.parse().ok()).await;
        Self { addr: SocketAddr::from(([127, 0, 0, 1], port)), _process: process, _folder: folder }
    }
}
