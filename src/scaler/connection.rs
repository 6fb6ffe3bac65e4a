//! How long a connection lives: it ends when another replica is to be asked.
//!
//! The client is then told to take another connection (GOAWAY): a Service sends that to the replica that answers.

use std::time::Duration;

use tokio::time::sleep;

use super::{KedaScaler, Role};

/// Shortest life of a connection to a replica that does not answer. Clients come again at once: without a pause they
/// would do nothing else. One that is refused outright would come again later and later.
pub(super) const LEAST_LIFE: Duration = Duration::from_secs(1);
/// Longest wait for the client to let go of a connection that ends.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// Resolves when a connection that begins now has to end.
pub(super) async fn ends(service: KedaScaler) {
    let mut role = service.role();
    let closed = async {
        let mut role = service.role();
        // The service keeps the sender.
        let _: Result<_, _> = role.wait_for(|role| *role == Role::Closed).await;
    };
    let unheard = async {
        sleep(LEAST_LIFE).await;
        let _: Result<_, _> = role.wait_for(|role| *role != Role::Answering).await;
    };
    tokio::select! {
        () = closed => {}
        () = unheard => {}
    }
}
