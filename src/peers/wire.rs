//! The messages of `pointsman.peers.v1`, as `proto/peers.proto` defines them.

/// The full name of the gRPC service.
pub(super) const SERVICE_NAME: &str = "pointsman.peers.v1.Replicas";
/// The path of the method `Follow`.
pub(super) const FOLLOW_PATH: &str = "/pointsman.peers.v1.Replicas/Follow";
/// The version of the protocol that this build speaks.
pub(super) const VERSION: u32 = 1;
/// The largest message that is accepted, in bytes. A sender stays far below it.
pub(super) const MAX_MESSAGE_BYTES: usize = 8 << 20;

/// The question of a follower to the replica that it follows.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct FollowRequest {
    /// The newest version of the protocol that the follower speaks.
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// The number of the follower's life.
    #[prost(fixed64, tag = "2")]
    pub(super) epoch: u64,
    /// The pool of the follower, as `NAMESPACE/NAME`.
    #[prost(string, tag = "3")]
    pub(super) pool: String,
    /// The name of the follower, for people.
    #[prost(string, tag = "4")]
    pub(super) name: String,
}

/// The state of a replica: all of it in a snapshot, otherwise the changes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Update {
    /// The version of the protocol.
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// The number of the sender's life.
    #[prost(fixed64, tag = "2")]
    pub(super) epoch: u64,
    /// The number of the message in its stream, from 1.
    #[prost(uint64, tag = "3")]
    pub(super) sequence: u64,
    /// True if this message is a snapshot, which replaces everything that was sent before.
    #[prost(bool, tag = "4")]
    pub(super) snapshot: bool,
    /// True if the next message follows at once.
    #[prost(bool, tag = "5")]
    pub(super) more: bool,
    /// The name of the sender, for people.
    #[prost(string, tag = "6")]
    pub(super) name: String,
    /// The names of the indexes, by number.
    #[prost(string, repeated, tag = "7")]
    pub(super) indexes: Vec<String>,
    /// The new endpoints and their numbers.
    #[prost(message, repeated, tag = "8")]
    pub(super) endpoints: Vec<EndpointRow>,
    /// The requests in flight at each endpoint.
    #[prost(message, repeated, tag = "9")]
    pub(super) shares: Vec<ShareRow>,
    /// The numbers of endpoints that were removed.
    #[prost(uint32, repeated, tag = "10")]
    pub(super) gone: Vec<u32>,
    /// The assignments since the last message.
    #[prost(message, repeated, tag = "11")]
    pub(super) assignments: Vec<AssignmentRow>,
    /// The number of assignments that the receiver was too slow for.
    #[prost(uint64, tag = "12")]
    pub(super) missed: u64,
    /// The time for which the oldest change waited, in microseconds.
    #[prost(uint64, tag = "13")]
    pub(super) waited_micros: u64,
    /// The waiting requests, if they changed.
    #[prost(message, optional, tag = "14")]
    pub(super) waiting: Option<Waiting>,
    /// The programs whose totals changed.
    #[prost(message, repeated, tag = "15")]
    pub(super) services: Vec<ServiceRow>,
    /// The sender ends.
    #[prost(bool, tag = "16")]
    pub(super) leaves: bool,
    /// Flows of which requests were released, where that has changed; the tokens are requests.
    #[prost(message, repeated, tag = "17")]
    pub(super) turns: Vec<ServiceRow>,
}

/// The total service of one program since the sender began to count.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ServiceRow {
    /// The fairness id of the program.
    #[prost(string, tag = "1")]
    pub(super) fairness_id: String,
    /// The weighed tokens.
    #[prost(uint64, tag = "2")]
    pub(super) tokens: u64,
}

/// The waiting requests in all bands of the sender.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Waiting {
    /// The bands in which requests wait.
    #[prost(message, repeated, tag = "1")]
    pub(super) bands: Vec<BandRow>,
}

/// The waiting requests in one band.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct BandRow {
    /// The priority of the band.
    #[prost(sint32, tag = "1")]
    pub(super) priority: i32,
    /// The number of requests.
    #[prost(uint64, tag = "2")]
    pub(super) requests: u64,
    /// The bytes of their bodies.
    #[prost(uint64, tag = "3")]
    pub(super) bytes: u64,
    /// The number of their tokens.
    #[prost(uint64, tag = "4")]
    pub(super) tokens: u64,
}

/// One life of an endpoint.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct EndpointRow {
    /// The number of the endpoint in this stream.
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
    /// The namespace.
    #[prost(string, tag = "2")]
    pub(super) namespace: String,
    /// The name.
    #[prost(string, tag = "3")]
    pub(super) name: String,
    /// The address, as `IP:PORT`.
    #[prost(string, tag = "4")]
    pub(super) address: String,
}

/// The requests that the sender has in flight at one endpoint.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct ShareRow {
    /// The number of the endpoint.
    #[prost(uint32, tag = "1")]
    pub(super) endpoint: u32,
    /// The number of requests in flight.
    #[prost(uint64, tag = "2")]
    pub(super) requests: u64,
    /// The number of their tokens.
    #[prost(uint64, tag = "3")]
    pub(super) tokens: u64,
    /// The number of requests that were ever sent to the endpoint.
    #[prost(uint64, tag = "4")]
    pub(super) dispatched: u64,
}

/// An assignment: a request that the sender has sent to an endpoint.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct AssignmentRow {
    /// The number of the index.
    #[prost(uint32, tag = "1")]
    pub(super) index: u32,
    /// The number of the endpoint.
    #[prost(uint32, tag = "2")]
    pub(super) endpoint: u32,
    /// The hashes of the request's blocks.
    #[prost(fixed64, repeated, tag = "3")]
    pub(super) blocks: Vec<u64>,
    /// The ends of its prompts in the list of hashes; empty for a single prompt.
    #[prost(uint32, repeated, tag = "4")]
    pub(super) ends: Vec<u32>,
    /// The number of tokens in a block.
    #[prost(uint32, tag = "5")]
    pub(super) block_size: u32,
}
