//! A real Redis, or Valkey.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::poll::within;
use super::process::Process;

/// Where `make setup` unpacks Debian's package, and where an installation of it puts the program.
const PLACES: [&str; 3] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/target/redis/usr/bin/redis-server"),
    "/usr/bin/redis-server",
    "/usr/bin/valkey-server",
];

/// A running server.
pub(crate) struct Redis {
    /// Where it listens, without TLS.
    pub(crate) addr: SocketAddr,
    /// Its process.
    pub(crate) process: Process,
    args: Vec<String>,
    program: PathBuf,
    _folder: TempDir,
}

impl Redis {
    /// Starts one at `addr`, where nobody listens, with these further options. `None`, with a printed line, where there is
    /// no such program.
    #[allow(clippy::print_stdout, reason = "whoever runs the tests has to know")]
    pub(crate) async fn start(addr: SocketAddr, options: &[&str]) -> Option<Self> {
        let Some(program) = PLACES.iter().map(PathBuf::from).find(|path| path.exists()) else {
            println!("no Redis: replicas over a server are NOT tested (make setup)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let usual = format!(
            "--port {} --bind 127.0.0.1 --appendonly no --dir {}",
            addr.port(),
            folder.path().display()
        );
        let mut args: Vec<String> = usual.split(' ').map(str::to_owned).collect();
        args.extend(["--save".to_owned(), String::new()]);
        args.extend(options.iter().map(|option| (*option).to_owned()));
        let process = Self::run(&program, &args).await;
        Some(Self { addr, process, args, program, _folder: folder })
    }

    async fn run(program: &Path, args: &[String]) -> Process {
        // The libraries that were unpacked beside it.
        let libraries = program.parent().and_then(Path::parent).map(|usr| usr.join("lib")).unwrap();
        let folders = std::fs::read_dir(&libraries).into_iter().flatten().flatten().map(|entry| entry.path());
        let folders = folders.map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
        let folders = if program.starts_with("/usr/bin") { String::new() } else { folders };
        let environment = [("LD_LIBRARY_PATH", folders.as_str())];
        let environment = if folders.is_empty() { &[][..] } else { &environment[..] };
        let mut process = Process::start_in(environment, "redis", program, args);
        process
            .line("the server is ready", |line| line.contains("Ready to accept connections").then_some(()))
            .await;
        process
    }

    /// Ends it without a word.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Starts it again, empty, on the same port.
    pub(crate) async fn begin_again(&mut self) {
        self.process = Self::run(&self.program, &self.args).await;
    }

    /// What it answers to a command of plain words.
    pub(crate) async fn ask(&self, command: &str) -> String {
        let mut line = TcpStream::connect(self.addr).await.unwrap();
        line.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        within("an answer of the server", line.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}
