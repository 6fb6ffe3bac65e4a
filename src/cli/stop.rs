//! What tells the program to stop.

/// Resolves at SIGTERM or SIGINT.
pub(super) async fn stop_signal() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = terminate => {}
        // Without the handler the default action ends the process, which is what was asked for.
        _ = tokio::signal::ctrl_c() => {}
    }
}
