//! The messages of `pointsman.peers.v1`, as `proto/peers.proto` has them.

/// Full name of the gRPC service.
pub(super) const SERVICE_NAME: &str = "pointsman.peers.v1.Replicas";
/// Path of `Follow`.
pub(super) const FOLLOW_PATH: &str = "/pointsman.peers.v1.Replicas/Follow";
/// Version of the protocol that this build speaks.
pub(super) const VERSION: u32 = 1;
/// Largest message taken, in bytes. A sender stays far below it.
pub(super) const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// Asks a replica to tell what it does.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct FollowRequest {
    /// Newest version of the protocol that the asker speaks.
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// Number of the asker's life.
    #[prost(fixed64, tag = "2")]
    pub(super) epoch: u64,
    /// Pool of the asker, as `NAMESPACE/NAME`.
    #[prost(string, tag = "3")]
    pub(super) pool: String,
    /// Name of the asker, for people.
    #[prost(string, tag = "4")]
    pub(super) name: String,
}

/// What a replica does: all of it in a snapshot, else what has changed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Update {
    /// Version of the protocol.
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// Number of the sender's life.
    #[prost(fixed64, tag = "2")]
    pub(super) epoch: u64,
    /// Number of the message in its stream, from 1.
    #[prost(uint64, tag = "3")]
    pub(super) sequence: u64,
    /// Everything that was said before counts no more.
    #[prost(bool, tag = "4")]
    pub(super) snapshot: bool,
    /// More follows at once.
    #[prost(bool, tag = "5")]
    pub(super) more: bool,
    /// Name of the sender, for people.
    #[prost(string, tag = "6")]
    pub(super) name: String,
    /// Names of the indexes, by number.
    #[prost(string, repeated, tag = "7")]
    pub(super) indexes: Vec<String>,
    /// Endpoints and their numbers.
    #[prost(message, repeated, tag = "8")]
    pub(super) endpoints: Vec<EndpointRow>,
    /// What is under way on each.
    #[prost(message, repeated, tag = "9")]
    pub(super) shares: Vec<ShareRow>,
    /// Numbers that stand for nothing any more.
    #[prost(uint32, repeated, tag = "10")]
    pub(super) gone: Vec<u32>,
    /// Requests that were sent somewhere.
    #[prost(message, repeated, tag = "11")]
    pub(super) assignments: Vec<AssignmentRow>,
    /// Assignments that the receiver was too slow for.
    #[prost(uint64, tag = "12")]
    pub(super) missed: u64,
    /// Time for which the oldest change waited, in microseconds.
    #[prost(uint64, tag = "13")]
    pub(super) waited_micros: u64,
    /// What waits, if that has changed.
    #[prost(message, optional, tag = "14")]
    pub(super) waiting: Option<Waiting>,
    /// Programs that were served, where that has changed.
    #[prost(message, repeated, tag = "15")]
    pub(super) services: Vec<ServiceRow>,
}

/// What the sender has served one program since it began to keep account of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ServiceRow {
    /// Fairness id.
    #[prost(string, tag = "1")]
    pub(super) fairness_id: String,
    /// Weighed tokens.
    #[prost(uint64, tag = "2")]
    pub(super) tokens: u64,
}

/// What waits in all bands of the sender.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Waiting {
    /// Bands in which something waits.
    #[prost(message, repeated, tag = "1")]
    pub(super) bands: Vec<BandRow>,
}

/// What waits in a band.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct BandRow {
    /// Priority.
    #[prost(sint32, tag = "1")]
    pub(super) priority: i32,
    /// Requests.
    #[prost(uint64, tag = "2")]
    pub(super) requests: u64,
    /// Bytes of their bodies.
    #[prost(uint64, tag = "3")]
    pub(super) bytes: u64,
    /// Their tokens.
    #[prost(uint64, tag = "4")]
    pub(super) tokens: u64,
}

/// One life of an endpoint.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct EndpointRow {
    /// Number within the stream.
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
    /// Namespace.
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    /// Name.
    #[prost(string, tag = "3")]
    pub(super) name: String,
    /// `IP:PORT`.
    #[prost(string, tag = "4")]
    pub(super) address: String,
}

/// What the sender has under way on an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct ShareRow {
    /// Number of the endpoint.
    #[prost(uint32, tag = "1")]
    pub(super) endpoint: u32,
    /// Requests.
    #[prost(uint64, tag = "2")]
    pub(super) requests: u64,
    /// Their tokens.
    #[prost(uint64, tag = "3")]
    pub(super) tokens: u64,
    /// Requests ever sent.
    #[prost(uint64, tag = "4")]
    pub(super) dispatched: u64,
}

/// A request that was sent somewhere.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct AssignmentRow {
    /// Number of the index.
    #[prost(uint32, tag = "1")]
    pub(super) index: u32,
    /// Number of the endpoint.
    #[prost(uint32, tag = "2")]
    pub(super) endpoint: u32,
    /// Hashes of its blocks.
    #[prost(fixed64, repeated, tag = "3")]
    pub(super) blocks: Vec<u64>,
    /// Where its prompts end; empty for a single one.
    #[prost(uint32, repeated, tag = "4")]
    pub(super) ends: Vec<u32>,
    /// Tokens of a block.
    #[prost(uint32, tag = "5")]
    pub(super) block_size: u32,
}
