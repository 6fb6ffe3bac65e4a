//! What a Service and the network do: connections to whoever is ready, and connections that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::support::health;

/// How often readiness is looked at.
const PROBE: Duration = Duration::from_millis(50);

/// A replica behind a Service.
#[derive(Clone, Copy)]
pub(crate) struct Backend {
    /// Where its health is asked.
    pub(crate) health: SocketAddr,
    /// Where connections to it go.
    pub(crate) target: SocketAddr,
}

/// One address for several replicas. A new connection goes to the one that is ready, and is closed at once if none is;
/// an open one stays where it is, as with kube-proxy.
pub(crate) struct Service {
    /// The address.
    pub(crate) addr: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Service {
    /// A Service of these replicas.
    pub(crate) async fn start(backends: Vec<Backend>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let ready = Arc::<Mutex<Option<SocketAddr>>>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let ready = Arc::clone(&ready);
            async move {
                loop {
                    let mut found = None;
                    for backend in &backends {
                        if is_ready(backend.health).await {
                            found = Some(backend.target);
                        }
                    }
                    *ready.lock() = found;
                    tokio::time::sleep(PROBE).await;
                }
            }
        });
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let target = *ready.lock();
                if let Some(target) = target {
                    open.spawn(pipe(client, target));
                }
            }
        });
        Self { addr, _tasks: tasks }
    }
}

async fn is_ready(addr: SocketAddr) -> bool {
    let Ok(channel) = Channel::from_shared(format!("http://{addr}")).unwrap().connect().await else {
        return false;
    };
    health(&channel, "readiness").await == Some(ServingStatus::Serving)
}

async fn pipe(mut client: TcpStream, target: SocketAddr) {
    if let Ok(mut server) = TcpStream::connect(target).await {
        // Either end may go at any time.
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// A way to a server that can be cut: what is sent then is lost without a word.
pub(crate) struct Wire {
    /// Where the way begins.
    pub(crate) addr: SocketAddr,
    cut: tokio::sync::watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Wire {
    /// A way to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let cut = tokio::sync::watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let mut is_cut = cut.subscribe();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            // Sockets whose way is cut stay open, and nobody reads them.
            let mut lost = Vec::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if *is_cut.borrow_and_update() {
                    lost.push(client);
                    continue;
                }
                let mut cut = is_cut.clone();
                open.spawn(async move {
                    let (mut client, mut server) = (client, TcpStream::connect(target).await.unwrap());
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => return,
                        // The guard that this gives must not be held.
                        () = async { drop(cut.wait_for(|cut| *cut).await) } => {}
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { addr, cut, _tasks: tasks }
    }

    /// Cuts it, for good.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }
}
