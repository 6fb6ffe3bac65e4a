//! What the operator chose, as values.

use std::net::IpAddr;
use std::time::Duration;

use super::connector::{Connector, EncodeConnector, Stage};

/// What is done when the prefill server fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPrefillFailure {
    /// The client gets the failure.
    Error,
    /// The further servers that the header names are asked, one after the other; then the client gets the failure.
    Next,
    /// The further servers are asked, and then the local engine processes the prompt itself.
    Local,
}

impl OnPrefillFailure {
    /// The choice of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "error" => Some(Self::Error),
            "next" => Some(Self::Next),
            "local" => Some(Self::Local),
            _ => None,
        }
    }
}

/// One choice for each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerStage {
    encode: bool,
    prefill: bool,
    decode: bool,
}

impl PerStage {
    /// Chooses a stage.
    pub fn choose(&mut self, stage: Stage) {
        match stage {
            Stage::Encode => self.encode = true,
            Stage::Prefill => self.prefill = true,
            Stage::Decode => self.decode = true,
        }
    }

    /// Whether a stage was chosen.
    pub fn of(self, stage: Stage) -> bool {
        match stage {
            Stage::Encode => self.encode,
            Stage::Prefill => self.prefill,
            Stage::Decode => self.decode,
        }
    }
}

/// Time limits; `None` waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until a connection stands, TLS included.
    pub connect: Duration,
    /// Until the prefill server has answered.
    pub prefill: Option<Duration>,
    /// Until an encode server has answered.
    pub encode: Option<Duration>,
    /// Until the local engine has begun to answer.
    pub decode: Option<Duration>,
    /// How long a connection may lie idle before it is closed. Model servers close theirs after 5 s.
    pub idle: Duration,
    /// How long open requests may take at the end of the process.
    pub drain: Duration,
}

/// Settings of MoRI-IO's write mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moriio {
    /// The decode server announces itself to the prefill server, which writes to it.
    pub write_mode: bool,
    /// Both servers are asked at once.
    pub parallel: bool,
    /// How long the decode server's answer waits for the prefill server.
    pub wait: Duration,
    /// Where this pod is reached.
    pub local_ip: String,
    /// Ports of the decode server: handshake and notifications.
    pub decode_ports: (u16, u16),
    /// The same of the prefill server.
    pub prefill_ports: (u16, u16),
    /// Tensor parallelism.
    pub tp_size: u32,
    /// Data parallelism, over all hosts and of each.
    pub dp_size: u32,
    /// 0: not said.
    pub dp_size_local: u32,
    /// Hosts of the prefill server's ranks.
    pub remote_hosts: Vec<String>,
    /// Hosts of this server's ranks.
    pub decode_hosts: Vec<String>,
}

/// What the operator chose for the way of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Port of rank 0.
    pub port: u16,
    /// Port of the local engine's rank 0.
    pub engine_port: u16,
    /// Ranks of this pod; each has a port of its own, and so has its engine.
    pub ranks: u16,
    /// This pod's address, if it is known.
    pub pod_ip: Option<IpAddr>,
    /// How caches travel.
    pub connector: Connector,
    /// How encoded media travel; `None` leaves encode servers alone.
    pub encode: Option<EncodeConnector>,
    /// The prefill server is any of those that the header names, and not the first.
    pub sampling: bool,
    /// Further attempts at the same prefill server.
    pub retries: u32,
    /// Pause between two attempts.
    pub backoff: Duration,
    /// What is done when the prefill server fails.
    pub on_prefill_failure: OnPrefillFailure,
    /// Longest prompt in bytes of the body that the local engine processes in place of a failed prefill server.
    pub local_body_bytes: u64,
    /// Most such requests in a second.
    pub local_per_second: u32,
    /// Tokens of one call to the local engine; 0 answers in one call.
    pub chunk_size: u64,
    /// `nixlv2` asks the prefill server to pull a part of the cache from elsewhere.
    pub p2p_pull: bool,
    /// Port of the peer-to-peer tier, of rank 0.
    pub p2p_port: u16,
    /// Port of Mooncake's bootstrap server.
    pub mooncake_port: u16,
    /// Port of SGLang's bootstrap server.
    pub sglang_port: u16,
    /// MoRI-IO.
    pub moriio: Moriio,
    /// Stages whose servers are spoken to over TLS.
    pub tls: PerStage,
    /// Stages whose certificates are not verified.
    pub skip_verify: PerStage,
    /// Time limits.
    pub limits: Limits,
    /// Transfer parameters of clients reach the engine.
    pub trust_client: bool,
    /// Largest body of a request that is split.
    pub body_bytes: usize,
    /// Bytes of bodies of requests that are being split, all together.
    pub buffer_bytes: usize,
    /// Idle connections to one server.
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
    /// Whether a source of caches is of use.
    pub fn takes_kv_source(&self) -> bool {
        self.connector == Connector::Offloading || self.connector == Connector::NixlV2 && self.p2p_pull
    }

    /// The rank that a routing header names: its address must be this pod's, if that is known, and its port one of ours.
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
