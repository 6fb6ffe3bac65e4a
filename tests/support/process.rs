//! A child process that dies with its guard and whose output is shown when the test fails.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use super::poll::{eventually, within};

/// A running program.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `program` and collects what it prints.
    pub(crate) fn start<A: AsRef<std::ffi::OsStr>>(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::start_in(&[], name, program, args)
    }

    /// The same with these further variables in its environment.
    pub(crate) fn start_in<A: AsRef<std::ffi::OsStr>>(
        environment: &[(&str, &str)],
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::start_with(environment, name, program, args, Stdio::piped())
    }

    /// The same with this standard error; only a new pipe is read.
    pub(crate) fn start_with<A: AsRef<std::ffi::OsStr>>(
        environment: &[(&str, &str)],
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        stderr: Stdio,
    ) -> Self {
        let mut child = Command::new(program)
            .args(args)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        let log = Arc::default();
        collect(child.stdout.take(), &log);
        collect(child.stderr.take(), &log);
        Self { name: name.to_owned(), child, log }
    }

    /// What the process has printed so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    /// What `pick` finds in a line of the output, now or later. The test fails if the process ends without it.
    pub(crate) async fn line<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        let what = format!("{}: {what}", self.name);
        let log = Arc::clone(&self.log);
        eventually(&what, async || {
            let ended = self.child.try_wait().ok().flatten();
            let found = log.lock().iter().find_map(|line| pick(line));
            assert!(found.is_some() || ended.is_none(), "ended with {ended:?} before: {what}");
            found
        })
        .await
    }

    /// The most memory that the process has had resident, in bytes, as Linux counts.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Memory that is resident now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_suffix("kB"));
        value.unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    /// File descriptors that are open now.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id().unwrap())).unwrap().count()
    }

    /// CPU time used so far, by all threads.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id().unwrap())).unwrap();
        // After the name, which may hold anything but ends with the last parenthesis: user and system time are fields
        // 14 and 15.
        let fields = stat.rsplit_once(')').unwrap().1;
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Time that the thread of this name has spent on a processor; `None` if there is no such thread.
    pub(crate) fn thread_cpu(&self, name: &str) -> Option<Duration> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id().unwrap())).unwrap();
        let named = |folder: &Path| {
            std::fs::read_to_string(folder.join("comm")).is_ok_and(|text| text.trim() == name)
        };
        let folder = tasks.map(|entry| entry.unwrap().path()).find(|folder| named(folder))?;
        let times = std::fs::read_to_string(folder.join("schedstat")).ok()?;
        Some(Duration::from_nanos(times.split_whitespace().next()?.parse().ok()?))
    }

    /// Sends the signal that asks a process to read its configuration again.
    pub(crate) async fn hang_up(&self) {
        let Some(pid) = self.child.id() else { return };
        let sent = Command::new("kill").arg("-HUP").arg(pid.to_string()).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "cannot signal {}", self.name);
    }

    /// Sends the signal that asks a process to end.
    pub(crate) async fn terminate(&self) {
        let Some(pid) = self.child.id() else { return };
        let sent = Command::new("kill").arg("-TERM").arg(pid.to_string()).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "cannot signal {}", self.name);
    }

    /// Ends the process at once, as a crash would, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within(&format!("end of {}", self.name), self.child.wait()).await.unwrap()
    }

    /// True while the process has not ended.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log.lock();
            let skipped = log.len().saturating_sub(40);
            eprintln!("---- {} said ({skipped} earlier lines left out)", self.name);
            for line in log.iter().skip(skipped) {
                eprintln!("{line}");
            }
        }
    }
}

fn collect(stream: Option<impl AsyncRead + Unpin + Send + 'static>, log: &Arc<Mutex<Vec<String>>>) {
    let Some(stream) = stream else { return };
    let log = Arc::clone(log);
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            log.lock().push(line);
        }
    });
}
