//! Threads beside those that serve, each with a runtime of its own.

use std::future::Future;

/// A thread with a runtime of its own.
pub(super) struct Thread {
    handle: std::thread::JoinHandle<()>,
    running: tokio::sync::oneshot::Receiver<()>,
}

impl Thread {
    /// Runs `work` on a thread called `name`.
    pub(super) fn start(name: &str, work: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (alive, running) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let handle = thread.spawn(move || {
            // Dropped when the work ends, also by a panic.
            let _alive = alive;
            runtime.block_on(work);
        })?;
        Ok(Self { handle, running })
    }

    /// Resolves when the work has ended, by itself or by a panic.
    pub(super) async fn ended(&mut self) {
        // Nothing is ever sent; the other end goes away.
        let _: Result<(), _> = (&mut self.running).await;
    }

    /// Waits until the work is done.
    pub(super) fn join(self) {
        if self.handle.join().is_err() {
            tracing::error!("a background thread panicked");
        }
    }
}
