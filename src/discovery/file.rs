//! File discovery: reads the endpoints file, and again when it changes.
//!
//! The file's folder is watched rather than the file, so that a replacement by rename and the swap of a mounted ConfigMap are seen. Where no
//! events come (a link that leads elsewhere, network file systems), a slow look at the content finds the change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecursiveMode, Watcher};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh64::xxh64;

use super::discover::{Discovery, DiscoveryError};
use super::file_state::FileState;
use crate::document::{Level, MAX_DOCUMENT_BYTES};
use crate::plugins::FileDiscoverySpec;
use crate::pool::{Objectives, Pool, PoolChange, Rewrites};

/// Time between looks at the content.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Events this close together are one change.
const QUIET: Duration = Duration::from_millis(50);
/// A folder that never comes to rest is not waited for longer than this.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// What a look at the file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The file was taken over.
    Applied(PoolChange),
    /// Something happened, but the file says what it said before.
    Unchanged,
    /// The file is at fault; the last good state stays in force.
    Refused(String),
}

type OnReload = Arc<dyn Fn(&ReloadOutcome) + Send + Sync>;

/// Keeps a pool as a file says.
pub struct FileDiscovery {
    spec: FileDiscoverySpec,
    on_reload: OnReload,
    poll_interval: Duration,
    seen: Option<Seen>,
}

impl std::fmt::Debug for FileDiscovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileDiscovery").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// What the last look found, so that the next one knows whether anything changed.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Content(u64),
    Unreadable(String),
}

impl FileDiscovery {
    /// Discovery from the file of `spec`. `on_reload` hears the outcome of the first load and of every later change.
    pub fn new(spec: FileDiscoverySpec, on_reload: impl Fn(&ReloadOutcome) + Send + Sync + 'static) -> Self {
        Self { spec, on_reload: Arc::new(on_reload), poll_interval: POLL_INTERVAL, seen: None }
    }

    /// The same, looking at the content this often.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Looks at the file and takes it over if it changed. Nothing is applied of a file with any fault.
    pub async fn look(&mut self, pool: &Pool) -> ReloadOutcome {
        let content = read(&self.spec.path).await;
        let seen = match &content {
            Ok(bytes) => Seen::Content(xxh64(bytes, 0)),
            Err(message) => Seen::Unreadable(message.clone()),
        };
        if self.seen.as_ref() == Some(&seen) {
            return ReloadOutcome::Unchanged;
        }
        self.seen = Some(seen);
        let name = self.spec.path.display().to_string();
        let state = content.and_then(|bytes| {
            FileState::parse(&bytes, &name).map_err(|problems| {
                let errors: Vec<String> = problems.of(Level::Error).map(ToString::to_string).collect();
                errors.join("\n")
            })
        });
        match state {
            Ok(state) => ReloadOutcome::Applied(apply(state, pool)),
            Err(message) => ReloadOutcome::Refused(message),
        }
    }

    /// One look after something may have happened.
    async fn reload(&mut self, pool: &Pool, by_event: bool) {
        let outcome = self.look(pool).await;
        let path = self.spec.path.display();
        match &outcome {
            ReloadOutcome::Applied(change) => tracing::info!(
                %path, added = change.added, removed = change.removed, kept = change.kept, "endpoints file taken over"
            ),
            ReloadOutcome::Unchanged if by_event => tracing::debug!(%path, "endpoints file unchanged"),
            ReloadOutcome::Unchanged => return,
            ReloadOutcome::Refused(error) => {
                tracing::error!(%path, %error, "endpoints file refused, the last good state stays in force");
            }
        }
        (self.on_reload)(&outcome);
    }
}

impl Discovery for FileDiscovery {
    async fn run(mut self, pool: Arc<Pool>, shutdown: CancellationToken) -> Result<(), DiscoveryError> {
        // The watch begins before the first look: what changes in between is not missed.
        let (events, mut changed) = mpsc::channel(1);
        let watcher = if self.spec.watch { watch(&self.spec.path, events) } else { None };
        let first = self.look(&pool).await;
        (self.on_reload)(&first);
        match first {
            ReloadOutcome::Refused(error) if pool.is_synced() => {
                tracing::error!(path = %self.spec.path.display(), %error, "endpoints file refused, the last good state stays in force");
            }
            ReloadOutcome::Refused(message) => return Err(DiscoveryError(message)),
            ReloadOutcome::Applied(change) => {
                tracing::info!(path = %self.spec.path.display(), endpoints = change.added, "endpoints file loaded");
            }
            ReloadOutcome::Unchanged => {}
        }
        if !self.spec.watch {
            shutdown.cancelled().await;
            return Ok(());
        }
        let mut poll = tokio::time::interval(self.poll_interval);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                // Without a watcher the channel is closed and this branch is off.
                Some(()) = changed.recv() => {
                    settle(&mut changed).await;
                    self.reload(&pool, true).await;
                }
                _ = poll.tick() => self.reload(&pool, false).await,
            }
        }
        drop(watcher);
        Ok(())
    }
}

/// Waits until no more events come.
async fn settle(changed: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + MAX_WAIT;
    while let Ok(Some(())) = tokio::time::timeout(QUIET, changed.recv()).await {
        if Instant::now() >= end {
            return;
        }
    }
}

/// Watches the folder of `path`. `None` if that cannot be; the content is looked at all the same.
fn watch(path: &Path, events: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let handler = move |event: notify::Result<Event>| {
        // Reading the file makes events too; an error may stand for lost ones.
        let matters = event.as_ref().map_or(true, |event| match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        });
        if matters {
            // A full channel already holds a wake-up.
            let _ = events.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(handler)
        .and_then(|mut watcher| watcher.watch(&folder, RecursiveMode::NonRecursive).map(|()| watcher));
    watcher
        .map_err(|error| {
            tracing::warn!(folder = %folder.display(), %error, "folder cannot be watched, changes are found by looking");
        })
        .ok()
}

/// Content of the file, at most one byte more than is allowed.
async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let fault = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
    let file = tokio::fs::File::open(path).await.map_err(fault)?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes).await.map_err(fault)?;
    Ok(bytes)
}

/// Takes a good state over. Resources for another pool are left out.
fn apply(state: FileState, pool: &Pool) -> PoolChange {
    for warning in &state.warnings {
        tracing::warn!(%warning, "endpoints file");
    }
    let ours = |kind: &'static str, name: &str, of: Option<&String>| {
        let ours = of.is_none_or(|of| of == pool.name());
        if !ours {
            tracing::warn!(kind, name, pool = of, ours = pool.name(), "left out: it is for another pool");
        }
        ours
    };
    let mut objectives = state.objectives;
    objectives.retain(|objective| ours("objective", &objective.name, objective.pool.as_ref()));
    let mut rewrites = state.rewrites;
    rewrites.retain(|rewrite| ours("model rewrite", &rewrite.rewrite.name, rewrite.pool.as_ref()));
    pool.set_objectives(
        objectives.into_iter().map(|objective| (objective.name, objective.priority)).collect::<Objectives>(),
    );
    pool.set_rewrites(Rewrites::new(rewrites.into_iter().map(|rewrite| rewrite.rewrite).collect()));
    // Last, for this marks the pool as complete.
    pool.replace_endpoints(state.endpoints)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
