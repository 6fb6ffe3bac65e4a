//! Captures of simulated decisions, in the form of those of the served program.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;

use crate::capture::lines::ConfigLine;
use crate::capture::{Capture, CaptureSettings, Limits};
use crate::cli::capturing::config_line;
use crate::config::Plan;
use crate::director::Beside;
use crate::metrics::Metrics;
use crate::pool::Pool;

/// Bytes that the captures of one configuration take on disk, and bytes of a file.
const DISK: u64 = 4 << 30;
const FILE: u64 = 256 << 20;

/// The captures of a call: one for each configuration, of the first replica in the first run.
#[derive(Debug)]
pub(super) struct Captures {
    folder: PathBuf,
    begun: RefCell<Vec<(String, Arc<Capture>)>>,
}

impl Captures {
    /// None yet. Each will have a folder of its own in this one.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, begun: RefCell::default() }
    }

    /// Begins that of a configuration; `None` if it has one.
    pub(super) fn begin(
        &self,
        name: &str,
        plan: &Plan,
        metrics: &Metrics,
        pool: &Pool,
        seed: u64,
    ) -> anyhow::Result<Option<Arc<Beside>>> {
        if self.begun.borrow().iter().any(|(begun, _)| begun == name) {
            return Ok(None);
        }
        let folder = self.folder.join(name.replace(['/', '\\'], "-"));
        let fault = || format!("--capture: the capture cannot begin in {}", folder.display());
        std::fs::create_dir_all(&folder).with_context(fault)?;
        let settings = CaptureSettings { folder: folder.clone(), disk: DISK, file: FILE };
        let whose = format!("{}/{}", pool.namespace(), pool.name());
        let capture = Arc::new(Capture::new(settings, metrics.capture(), whose));
        capture.decides(ConfigLine { seed: seed.to_string(), ..config_line(plan) });
        capture.start(Limits::default(), 0).with_context(fault)?;
        self.begun.borrow_mut().push((name.to_owned(), Arc::clone(&capture)));
        Ok(Some(Arc::new(Beside::new(Some(capture), pool.epoch()))))
    }

    /// Waits until all lines are written.
    pub(super) fn end(&self) {
        self.begun.borrow().iter().for_each(|(_, capture)| capture.stop());
    }
}
