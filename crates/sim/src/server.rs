//! Runs one server, or all servers of a command line.

use std::future::Future;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::args::SimArgs;
use super::config::SimConfig;
use super::faults::{FakeMetrics, Faults};
use super::metrics_page::Template;
use super::received::Received;
use super::service;
use super::state::{SimStats, State};
use super::wire::{Abort, Wire};

/// A running server. Dropping it closes its listener and its connections.
#[derive(Debug)]
pub struct SimServer {
    /// The address that the server listens on.
    pub addr: SocketAddr,
    /// The value of `x-sim-server` in the server's answers.
    pub name: String,
    state: Arc<State>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl SimServer {
    /// Starts a server. With port 0 the system chooses the port. The call must be made within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Fails if the address cannot be bound.
    pub async fn start(config: SimConfig, addr: SocketAddr) -> io::Result<Self> {
        let template = Arc::new(Template::new(config.page_shape()));
        Self::start_with(config, addr, template).await
    }

    async fn start_with(config: SimConfig, addr: SocketAddr, template: Arc<Template>) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let name = config.name.clone();
        let state = Arc::new(State::new(config, template));
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        let driver = Arc::clone(&state.driver);
        tasks.spawn(stopping.clone().run_until_cancelled_owned(async move { driver.run().await }));
        let accepting = accept(listener, addr.port(), Arc::clone(&state), stopping.clone(), tasks.clone());
        tasks.spawn(stopping.clone().run_until_cancelled_owned(accepting));
        tasks.close();
        Ok(Self { addr, name, state, stopping, tasks })
    }

    /// Replaces all faults.
    pub fn set_faults(&self, faults: Faults) {
        self.state.set_faults(faults);
    }

    /// Pins figures of the metrics page. The default pins none.
    pub fn set_fake_metrics(&self, fake: FakeMetrics) {
        self.state.set_fake_metrics(fake);
    }

    /// The last `n` requests (at most 100) on all paths except `/metrics` and `/sim/`, the oldest first.
    pub fn received(&self, n: usize) -> Vec<Received> {
        self.state.received.lock().last(n)
    }

    /// The present figures.
    pub fn stats(&self) -> SimStats {
        self.state.stats()
    }

    /// Stops the server and waits until its port is free.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for SimServer {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// Runs the servers that `args` asks for until `shutdown` resolves.
///
/// # Errors
///
/// Fails if the arguments contradict each other, or if an address cannot be bound.
pub async fn run(args: SimArgs, shutdown: impl Future) -> anyhow::Result<()> {
    let mut servers = Vec::new();
    let mut template: Option<Arc<Template>> = None;
    for (config, addr) in args.servers()? {
        // The servers of one command line have equal pages, so they share one text.
        let template = template.get_or_insert_with(|| Arc::new(Template::new(config.page_shape())));
        let server = SimServer::start_with(config, addr, Arc::clone(template));
        servers.push(server.await.with_context(|| format!("cannot listen on {addr}"))?);
    }
    if args.print_addresses {
        let mut stdout = io::stdout().lock();
        for server in &servers {
            writeln!(stdout, "{} {}", server.name, server.addr)?;
        }
        stdout.flush()?;
    } else {
        // The user has closed standard error, so the announcement is not needed.
        let _ = writeln!(io::stderr(), "{}", announcement(&args, servers.iter().map(|server| server.addr)));
    }
    if let Some(first) = servers.first() {
        tracing::info!(servers = servers.len(), first = %first.addr, "simulated model servers are listening");
    }
    shutdown.await;
    for server in servers {
        server.stop().await;
    }
    Ok(())
}

/// The most addresses that the announcement names one by one.
const NAMED: usize = 16;

/// A line that tells the user the number, the models and the addresses of the servers.
fn announcement(args: &SimArgs, addresses: impl ExactSizeIterator<Item = SocketAddr>) -> String {
    let count = addresses.len();
    let listed: Vec<String> = addresses.take(NAMED).map(|address| address.to_string()).collect();
    let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
    let (servers, models) = (
        if count == 1 { "simulated server" } else { "simulated servers" },
        if args.model.len() == 1 { "model" } else { "models" },
    );
    format!("{count} {servers} of the {models} {} on {}{more}", args.model.join(", "), listed.join(", "))
}

async fn accept(
    listener: TcpListener,
    port: u16,
    state: Arc<State>,
    stopping: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = connection(stream, port, Arc::clone(&state));
                tasks.spawn(stopping.clone().run_until_cancelled_owned(serving));
            }
            Err(error) => {
                // This usually means that the process has no file descriptors left. Others may become free.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, port: u16, state: Arc<State>) {
    // Without this option small events wait for acknowledgements. If it cannot be set, they are only late.
    let _ = stream.set_nodelay(true);
    let abort = Abort::default();
    let io = TokioIo::new(Wire::new(stream, abort.clone()));
    let service = service_fn(move |request| service::serve(Arc::clone(&state), port, abort.clone(), request));
    if let Err(error) = http1::Builder::new().serve_connection(io, service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        sim: SimArgs,
    }

    #[test]
    fn the_announcement_names_models_and_addresses_and_only_so_many_of_them() {
        let said = |line: &str| {
            let args = Command::parse_from(std::iter::once("sim").chain(line.split_whitespace())).sim;
            let addresses: Vec<SocketAddr> = args.servers().unwrap().into_iter().map(|(_, at)| at).collect();
            announcement(&args, addresses.into_iter())
        };
        assert_eq!(said(""), "1 simulated server of the model sim-model on 127.0.0.1:8000");
        assert_eq!(
            said("--count 2 --model a --model b"),
            "2 simulated servers of the models a, b on 127.0.0.1:8000, 127.0.0.1:8001"
        );
        let many = said("--count 300");
        assert!(many.ends_with(":8015 and 284 more"), "{many}");
    }
}
