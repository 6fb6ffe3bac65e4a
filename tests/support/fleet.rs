//! Simulated model servers.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use super::client::Client;
use super::pointsman::program;
use super::process::Process;

/// Some simulated servers.
pub(crate) struct Fleet {
    /// They, in order.
    pub(crate) servers: Vec<Server>,
    processes: Vec<Process>,
}

/// One of them.
#[derive(Clone)]
pub(crate) struct Server {
    /// What it calls itself in `x-sim-server`.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

impl Fleet {
    /// `count` servers in one process, with these further flags.
    pub(crate) async fn start(count: usize, flags: &[&str]) -> Self {
        let (process, servers) = simulate(&[], "sim", count, flags).await;
        Self { servers, processes: vec![process] }
    }

    /// One more server, in a process whose command stands behind the words of `prefix`.
    pub(crate) async fn add(&mut self, prefix: &[&str], name: &str, flags: &[&str]) {
        let (process, servers) = simulate(prefix, name, 1, flags).await;
        self.processes.push(process);
        self.servers.extend(servers);
    }

    /// `count` servers, each in a process that can be killed.
    pub(crate) async fn start_apart(count: usize, flags: &[&str]) -> Self {
        let mut fleet = Self { servers: Vec::new(), processes: Vec::new() };
        for number in 0..count {
            let (process, servers) = simulate(&[], &format!("sim{number}"), 1, flags).await;
            fleet.processes.push(process);
            fleet.servers.extend(servers);
        }
        fleet
    }

    /// Kills the server with this number; it must have a process of its own.
    pub(crate) async fn kill(&mut self, number: usize) {
        assert_eq!(self.processes.len(), self.servers.len(), "the servers share a process");
        self.processes[number].kill().await;
    }

    /// Names and addresses, as an endpoints file wants them.
    pub(crate) fn list(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.servers.iter().map(|server| (server.name.as_str(), server.addr))
    }

    /// The server with this name.
    pub(crate) fn named(&self, name: &str) -> &Server {
        self.servers.iter().find(|server| server.name == name).unwrap_or_else(|| panic!("no server {name:?}"))
    }
}

impl Server {
    /// A client that goes straight to it.
    pub(crate) fn client(&self) -> Client {
        Client::http1(self.addr)
    }

    /// Changes its faults.
    pub(crate) async fn fault(&self, changes: &Value) {
        let reply = self.client().post("/sim/faults", changes).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

async fn simulate(command: &[&str], prefix: &str, count: usize, flags: &[&str]) -> (Process, Vec<Server>) {
    let (count_text, path) = (count.to_string(), program());
    let mut args = [command, &[path.to_str().unwrap()]].concat();
    args.extend(["sim", "--count", &count_text, "--port", "0", "--print-addresses", "--name-prefix", prefix]);
    args.extend(flags);
    let mut process = Process::start(prefix, Path::new(args[0]), &args[1..]);
    let mut servers = Vec::new();
    for number in 0..count {
        let name = format!("{prefix}-{number}");
        let addr = process
            .line(&format!("address of {name}"), |line| {
                line.strip_prefix(&name)?.strip_prefix(' ')?.parse().ok()
            })
            .await;
        servers.push(Server { name, addr });
    }
    (process, servers)
}
