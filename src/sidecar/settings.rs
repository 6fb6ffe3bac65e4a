//! The settings of the sidecar, read from its flags.

use std::net::IpAddr;
use std::time::Duration;

use super::connector::{Connector, EncodeConnector, Stage};

/// What the sidecar does when the prefill server of a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPrefillFailure {
    /// The client gets the failure.
    Error,
    /// The sidecar asks the other prefill servers that the header names, one after the other. If all fail, the client
    /// gets the failure of the last one.
    Next,
    /// The sidecar asks the other prefill servers, and then lets the local engine process the prompt itself.
    Local,
}

impl OnPrefillFailure {
    /// The choice with this name as the flag spells it; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "error" => Some(Self::Error),
            "next" => Some(Self::Next),
            "local" => Some(Self::Local),
            _ => None,
        }
    }
}

/// One yes-or-no choice for each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerStage {
    encode: bool,
    prefill: bool,
    decode: bool,
}

impl PerStage {
    /// Sets the choice of `stage` to yes.
    pub fn choose(&mut self, stage: Stage) {
        match stage {
            Stage::Encode => self.encode = true,
            Stage::Prefill => self.prefill = true,
            Stage::Decode => self.decode = true,
        }
    }

    /// Returns true if the choice of `stage` is yes.
    pub fn of(self, stage: Stage) -> bool {
        match stage {
            Stage::Encode => self.encode,
            Stage::Prefill => self.prefill,
            Stage::Decode => self.decode,
        }
    }
}

/// Time limits. `None` sets no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The time to set up a connection, with the TLS handshake.
    pub connect: Duration,
    /// The time from the prefill call until the prefill server has answered in full.
    pub prefill: Option<Duration>,
    /// The time from an encode call until the encode server has answered in full.
    pub encode: Option<Duration>,
    /// The time from the decode call until the head of the engine's answer is here.
    pub decode: Option<Duration>,
    /// The time for which a connection may lie idle before the sidecar closes it. It is shorter than the 5 s after
    /// which model servers close theirs.
    pub idle: Duration,
    /// The time that open requests get to end when the process stops.
    pub drain: Duration,
}

/// Settings of MoRI-IO, a connector whose prefill server can write the cache to the decode server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moriio {
    /// Turns write mode on: the prefill call names the decode server, and the prefill server writes the cache to it.
    pub write_mode: bool,
    /// The sidecar asks the prefill and the decode server at the same time.
    pub parallel: bool,
    /// The time that a finished answer of the decode server waits for the prefill server. It is used with `parallel`.
    pub wait: Duration,
    /// The address of this pod that the prefill server writes to.
    pub local_ip: String,
    /// The handshake port and the notification port of the decode server.
    pub decode_ports: (u16, u16),
    /// The handshake port and the notification port of the prefill server.
    pub prefill_ports: (u16, u16),
    /// The number of tensor-parallel workers.
    pub tp_size: u32,
    /// The number of data-parallel ranks over all hosts.
    pub dp_size: u32,
    /// The number of data-parallel ranks on each host; 0 leaves the field out.
    pub dp_size_local: u32,
    /// The hosts of the prefill server's ranks.
    pub remote_hosts: Vec<String>,
    /// The hosts of this decode server's ranks.
    pub decode_hosts: Vec<String>,
}

/// The settings that decide how requests are routed, split and bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The port that the sidecar listens on for rank 0. Rank `n` has the port `port + n`.
    pub port: u16,
    /// The port of the local engine's rank 0. The engine of rank `n` has the port `engine_port + n`.
    pub engine_port: u16,
    /// The number of data-parallel ranks of this pod. Each rank has a port of the sidecar and an engine port.
    pub ranks: u16,
    /// The address of this pod; `None` if the pod does not know its address.
    pub pod_ip: Option<IpAddr>,
    /// The protocol by which the cache of a prompt travels from the prefill to the decode server.
    pub connector: Connector,
    /// The protocol by which encoded images and sounds travel. With `None` the sidecar asks no encode servers.
    pub encode: Option<EncodeConnector>,
    /// The sidecar begins at a random one of the prefill servers that the header names, and not at the first.
    pub sampling: bool,
    /// The number of further attempts at a prefill server after its first failure.
    pub retries: u32,
    /// The pause between two attempts at the same prefill server.
    pub backoff: Duration,
    /// What the sidecar does when the prefill server fails.
    pub on_prefill_failure: OnPrefillFailure,
    /// The longest body, in bytes, that the local engine processes in place of a failed prefill server.
    pub local_body_bytes: u64,
    /// The highest number of requests each second that the local engine processes in place of a failed prefill server.
    pub local_per_second: u32,
    /// The number of tokens that one call to the local engine may write. 0 lets the engine write the answer in one
    /// call.
    pub chunk_size: u64,
    /// With the connector `nixlv2`, the prefill server pulls the part of the cache that another server already has.
    pub p2p_pull: bool,
    /// The port of rank 0 of the peer-to-peer cache tier.
    pub p2p_port: u16,
    /// The port of Mooncake's bootstrap server on the prefill server.
    pub mooncake_port: u16,
    /// The port of SGLang's bootstrap server on the prefill server.
    pub sglang_port: u16,
    /// The settings of MoRI-IO.
    pub moriio: Moriio,
    /// The stages whose servers the sidecar speaks TLS to.
    pub tls: PerStage,
    /// The stages whose server certificates the sidecar does not verify.
    pub skip_verify: PerStage,
    /// The time limits.
    pub limits: Limits,
    /// Transfer parameters that a client sends reach the engine. Otherwise the sidecar takes them out.
    pub trust_client: bool,
    /// True if the answers to `GET /metrics` end with the counts of outcomes, for a picker that reads the page.
    pub outcomes_in_metrics: bool,
    /// The largest body, in bytes, of a request that is split.
    pub body_bytes: usize,
    /// The bytes that the bodies of all requests being split may fill together.
    pub buffer_bytes: usize,
    /// The number of idle connections that the sidecar keeps to one server.
    pub idle_connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 8000,
            engine_port: 8200,
            ranks: 1,
            pod_ip: None,
            connector: Connector::NixlV2,
            encode: None,
            sampling: false,
            retries: 0,
            backoff: Duration::from_millis(200),
            on_prefill_failure: OnPrefillFailure::Error,
            local_body_bytes: 32 << 10,
            local_per_second: 10,
            chunk_size: 0,
            p2p_pull: false,
            p2p_port: 7777,
            mooncake_port: 8998,
            sglang_port: 8998,
            moriio: Moriio::default(),
            tls: PerStage::default(),
            skip_verify: PerStage::default(),
            limits: Limits::default(),
            trust_client: false,
            outcomes_in_metrics: false,
            body_bytes: 64 << 20,
            buffer_bytes: 512 << 20,
            idle_connections: 1024,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            prefill: Some(Duration::from_mins(5)),
            encode: Some(Duration::from_mins(1)),
            decode: None,
            idle: Duration::from_secs(4),
            drain: Duration::from_mins(1),
        }
    }
}

impl Default for Moriio {
    fn default() -> Self {
        Self {
            write_mode: false,
            parallel: false,
            wait: Duration::from_secs(30),
            local_ip: String::new(),
            decode_ports: (6301, 61005),
            prefill_ports: (6301, 61005),
            tp_size: 1,
            dp_size: 1,
            dp_size_local: 0,
            remote_hosts: Vec::new(),
            decode_hosts: Vec::new(),
        }
    }
}

impl Settings {
    /// Returns true if the connector can pull a cache from the server that the cache source header names.
    pub fn takes_kv_source(&self) -> bool {
        self.connector == Connector::Offloading || self.connector == Connector::NixlV2 && self.p2p_pull
    }

    /// Returns the rank that the value of the rank header names, such as `10.1.1.1:8001`. The address must be the
    /// pod's, if the pod knows its address. The port must be one of the sidecar's ports.
    pub fn rank(&self, text: &str) -> Option<u16> {
        let target = super::target::Target::parse(text)?;
        let address = target.address();
        if self.pod_ip.is_some() && address != self.pod_ip {
            return None;
        }
        let rank = target.port()?.checked_sub(self.port)?;
        (rank < self.ranks).then_some(rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_named_by_address_and_port_or_by_port_where_the_address_is_not_known() {
        let mut settings = Settings { ranks: 2, pod_ip: "10.1.1.1".parse().ok(), ..Settings::default() };
        for (text, rank) in [
            ("10.1.1.1:8000", Some(0)),
            ("10.1.1.1:8001", Some(1)),
            ("10.1.1.1:8005", None),
            ("10.1.1.2:8001", None),
            ("10.1.1.1", None),
            ("10.1.1.1:80", None),
            ("x", None),
        ] {
            assert_eq!(settings.rank(text), rank, "{text}");
        }
        settings.pod_ip = None;
        assert_eq!(settings.rank("10.1.1.2:8001"), Some(1));
    }
}
