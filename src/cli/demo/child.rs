//! A program that runs as long as its guard lives.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};

/// Time a program has to become ready.
const PATIENCE: Duration = Duration::from_mins(1);
/// Time between looks at whether it is.
const PAUSE: Duration = Duration::from_millis(20);
/// Lines of a failed program's output that are shown.
const LAST_LINES: usize = 20;

/// A running program whose output goes to a file.
pub(super) struct Guarded {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Guarded {
    /// Starts `program`; what it prints goes to `NAME.log` in `folder`.
    pub(super) fn start<A: AsRef<OsStr>>(
        name: &'static str,
        program: &Path,
        args: impl IntoIterator<Item = A>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name, child, log })
    }

    /// The lines that the program has printed so far.
    pub(super) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The first value that `probe` gives. Fails when the program ends or too much time passes.
    pub(super) async fn until<T>(
        &mut self,
        mut probe: impl AsyncFnMut(&Self) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = probe(self).await {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}; its last words:\n{}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} is not ready after {PATIENCE:?}; its last words:\n{}",
                    self.name,
                    self.last_words()
                );
            }
            sleep(PAUSE).await;
        }
    }

    fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Either fails only if the program has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
