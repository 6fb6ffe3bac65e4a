//! File discovery: reads the endpoints file, and again when it changes; looks host names up, and again every now and
//! then.
//!
//! The file's folder is watched rather than the file, so that a replacement by rename and the swap of a mounted
//! ConfigMap are seen. Where no events come (a link that leads elsewhere, network file systems), a slow look at the
//! content finds the change.
//!
//! The beginning of a file may be a good file with fewer endpoints. So a change is taken over when its writer closed
//! the file or put it in place, and otherwise only if two looks found the same and nobody is writing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use xxhash_rust::xxh64::xxh64;

use super::discover::{Discovery, DiscoveryError};
use super::file_signals::{Announced, Signals};
use super::file_state::FileState;
use super::hosts::Hosts;
use super::resolve::Resolver;
use crate::document::MAX_DOCUMENT_BYTES;
use crate::plugins::FileDiscoverySpec;
use crate::pool::{EndpointSpec, Objectives, Pool, PoolChange, Rewrites};

/// Time between looks at the content.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Time between lookups of host names.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(10);
/// Events this close together are one change, and two looks this far apart are two.
const QUIET: Duration = Duration::from_millis(50);
/// A file that never comes to rest is not waited for longer than this.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The outcome of a look at the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The file was taken over.
    Applied(PoolChange),
    /// Something happened, but the file says what it said before, or may not be whole yet.
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
    lookup_interval: Duration,
    seen: Option<Seen>,
    /// The last state of the file that was seen once. It is taken over if the next look sees it again.
    doubted: Option<Seen>,
    resolver: Resolver,
    /// Endpoints of the last good file, and their host names.
    written: (Vec<EndpointSpec>, Hosts),
    /// The same as the pool has them.
    applied: Vec<EndpointSpec>,
}

impl std::fmt::Debug for FileDiscovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileDiscovery").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// The state that the last look found, so that the next look knows whether anything changed.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Content(u64),
    Unreadable(String),
}

impl FileDiscovery {
    /// Discovery from the file of `spec`; a relative path begins at the working directory of now. `on_reload` hears the outcome of the first load and of every later change.
    pub fn new(spec: FileDiscoverySpec, on_reload: impl Fn(&ReloadOutcome) + Send + Sync + 'static) -> Self {
        // Messages name the whole path, so that they show which folder a relative one was taken from.
        let path = std::path::absolute(&spec.path).unwrap_or(spec.path);
        Self {
            spec: FileDiscoverySpec { path, ..spec },
            on_reload: Arc::new(on_reload),
            poll_interval: POLL_INTERVAL,
            lookup_interval: LOOKUP_INTERVAL,
            seen: None,
            doubted: None,
            resolver: Resolver::system(),
            written: Default::default(),
            applied: Vec::new(),
        }
    }

    /// The same, looking at the content this often.
    #[must_use]
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// The same, with host names looked up by `resolver` this often.
    #[cfg(test)]
    fn with_resolver(mut self, resolver: Resolver, interval: Duration) -> Self {
        (self.resolver, self.lookup_interval) = (resolver, interval);
        self
    }

    /// Looks at the file and takes it over if it changed: the first time at once, later if two looks found the same.
    /// A file with any fault changes nothing.
    pub async fn look(&mut self, pool: &Pool) -> ReloadOutcome {
        let announced = if self.seen.is_none() { Announced::Whole } else { Announced::Maybe };
        self.look_as(announced, pool).await
    }

    async fn look_as(&mut self, announced: Announced, pool: &Pool) -> ReloadOutcome {
        let content = read(&self.spec.path).await;
        let seen = match &content {
            Ok(bytes) => Seen::Content(xxh64(bytes, 0)),
            Err(message) => Seen::Unreadable(message.clone()),
        };
        let before = self.doubted.take();
        if self.seen.as_ref() == Some(&seen) {
            return ReloadOutcome::Unchanged;
        }
        if announced == Announced::Maybe && before.as_ref() != Some(&seen) {
            self.doubted = Some(seen);
            return ReloadOutcome::Unchanged;
        }
        self.seen = Some(seen);
        let name = self.spec.path.display().to_string();
        let state = content.and_then(|bytes| {
            // With the warnings: where a field is missing, a misspelt one beside it is the reason.
            let parse = if self.spec.clusters { FileState::parse_clusters } else { FileState::parse };
            parse(&bytes, &name).map_err(|problems| problems.to_string())
        });
        match state {
            Ok(state) => ReloadOutcome::Applied(self.apply(state, pool).await),
            Err(message) => ReloadOutcome::Refused(message),
        }
    }

    /// One look after something may have happened.
    async fn reload(&mut self, announced: Announced, pool: &Pool, by_event: bool) {
        let outcome = self.look_as(announced, pool).await;
        let path = self.spec.path.display();
        match &outcome {
            ReloadOutcome::Applied(change) => tracing::info!(
                %path, added = change.added, removed = change.removed, kept = change.kept, "endpoints file taken over"
            ),
            ReloadOutcome::Unchanged if self.doubted.is_some() => return,
            ReloadOutcome::Unchanged if by_event => tracing::debug!(%path, "endpoints file unchanged"),
            ReloadOutcome::Unchanged => return,
            ReloadOutcome::Refused(error) => {
                tracing::error!(%path, %error, "endpoints file refused, the last good state stays in force");
            }
        }
        (self.on_reload)(&outcome);
    }

    /// Takes a good state over. Resources for another pool are left out.
    async fn apply(&mut self, state: FileState, pool: &Pool) -> PoolChange {
        for warning in &state.warnings {
            tracing::warn!(%warning, "endpoints file");
        }
        self.resolver.refresh(state.hosts.names()).await;
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
            objectives
                .into_iter()
                .map(|objective| (objective.name, objective.priority))
                .collect::<Objectives>(),
        );
        pool.set_rewrites(Rewrites::new(rewrites.into_iter().map(|rewrite| rewrite.rewrite).collect()));
        self.written = (state.endpoints, state.hosts);
        self.applied = self.resolver.resolved(&self.written.0, &self.written.1);
        // Last, for this marks the pool as complete.
        pool.replace_endpoints(self.applied.clone())
    }

    /// Looks the host names up again.
    async fn refresh(&mut self, pool: &Pool) {
        if self.written.1.names().next().is_none() {
            return;
        }
        self.resolver.refresh(self.written.1.names()).await;
        let now = self.resolver.resolved(&self.written.0, &self.written.1);
        if now != self.applied {
            let change = pool.replace_endpoints(now.clone());
            tracing::info!(
                added = change.added,
                removed = change.removed,
                kept = change.kept,
                "addresses of host names in the endpoints file changed"
            );
            self.applied = now;
        }
    }

    /// Follows the file and its host names until `shutdown`.
    async fn follow(&mut self, pool: &Pool, signals: &Signals, shutdown: &CancellationToken) {
        let every = |interval| {
            let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        };
        let (mut poll, mut lookups) = (every(self.poll_interval), every(self.lookup_interval));
        let again = tokio::time::sleep(QUIET);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                // Without a watcher there are no signals.
                announced = signals.announced() => {
                    let announced = settle(announced, signals).await;
                    if !signals.is_being_written(std::time::Instant::now()) {
                        self.reload(announced, pool, true).await;
                        again.as_mut().reset(Instant::now() + QUIET);
                    }
                }
                () = &mut again, if self.doubted.is_some() && !signals.is_being_written(std::time::Instant::now()) => {
                    self.reload(Announced::Maybe, pool, true).await;
                    again.as_mut().reset(Instant::now() + QUIET);
                }
                _ = poll.tick(), if self.spec.watch => {
                    if !signals.is_being_written(std::time::Instant::now()) {
                        self.reload(Announced::Maybe, pool, false).await;
                        again.as_mut().reset(Instant::now() + self.poll_interval);
                    }
                }
                _ = lookups.tick() => self.refresh(pool).await,
            }
        }
    }
}

impl Discovery for FileDiscovery {
    async fn run(mut self, pool: Arc<Pool>, shutdown: CancellationToken) -> Result<(), DiscoveryError> {
        // The watch begins before the first look: what changes in between is not missed.
        let signals = Signals::new(&self.spec.path);
        let watcher = if self.spec.watch { signals.watch() } else { None };
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
        // A lookup may take its time; the end does not wait for it.
        shutdown.run_until_cancelled(self.follow(&pool, &signals, &shutdown)).await;
        drop(watcher);
        Ok(())
    }
}

/// Waits until nothing more is announced.
async fn settle(mut announced: Announced, signals: &Signals) -> Announced {
    let end = Instant::now() + MAX_WAIT;
    while let Ok(more) = tokio::time::timeout(QUIET, signals.announced()).await {
        if more == Announced::Whole {
            announced = more;
        }
        if Instant::now() >= end {
            break;
        }
    }
    announced
}

/// Content of the file, at most one byte more than is allowed.
async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let fault = |error: std::io::Error| format!("{}: cannot be read: {error}", path.display());
    // A pipe that nobody writes to would never let go of whoever opens it.
    if !tokio::fs::metadata(path).await.map_err(fault)?.is_file() {
        return Err(format!("{}: cannot be read: it is no regular file", path.display()));
    }
    let file = tokio::fs::File::open(path).await.map_err(fault)?;
    let mut bytes = Vec::new();
    file.take(MAX_DOCUMENT_BYTES as u64 + 1).read_to_end(&mut bytes).await.map_err(fault)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
