//! The messages of `envoy.service.ext_proc.v3`, as far as an endpoint picker needs them.
//!
//! Field numbers are Envoy's; fields that are not listed are skipped when reading and never written. Text that a client
//! can influence is declared as bytes: the two are the same on the wire, and a header that is no UTF-8 then is data and
//! not the end of the stream. Body bytes are slices of the receive buffer, not copies. A map is declared as its
//! repeated entries, which is what it is on the wire.

use bytes::Bytes;

/// A message from the proxy.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingRequest {
    /// The message of the proxy.
    #[prost(oneof = "Request", tags = "2, 3, 4, 5, 6, 7")]
    pub request: Option<Request>,
    /// Metadata of the proxy's filters.
    #[prost(message, optional, tag = "8")]
    pub metadata_context: Option<Metadata>,
    /// The proxy only reports and waits for no answer.
    #[prost(bool, tag = "10")]
    pub observability_mode: bool,
    /// Modes of this stream; on the first message only.
    #[prost(message, optional, tag = "11")]
    pub protocol_config: Option<ProtocolConfiguration>,
}

/// The kinds of [`ProcessingRequest`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Request {
    /// Request headers.
    #[prost(message, tag = "2")]
    RequestHeaders(HttpHeaders),
    /// Response headers.
    #[prost(message, tag = "3")]
    ResponseHeaders(HttpHeaders),
    /// Request body, or a piece of it.
    #[prost(message, tag = "4")]
    RequestBody(HttpBody),
    /// Response body, or a piece of it.
    #[prost(message, tag = "5")]
    ResponseBody(HttpBody),
    /// Request trailers.
    #[prost(message, tag = "6")]
    RequestTrailers(HttpTrailers),
    /// Response trailers.
    #[prost(message, tag = "7")]
    ResponseTrailers(HttpTrailers),
}

/// The modes in which the proxy sends bodies on this stream.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ProtocolConfiguration {
    /// `ProcessingMode.BodySendMode` of requests.
    #[prost(int32, tag = "1")]
    pub request_body_mode: i32,
    /// `ProcessingMode.BodySendMode` of responses.
    #[prost(int32, tag = "2")]
    pub response_body_mode: i32,
    /// In `STREAMED` mode: body pieces come before the headers are answered.
    #[prost(bool, tag = "3")]
    pub send_body_without_waiting_for_header_response: bool,
}

/// Headers of a request or response.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpHeaders {
    /// The headers.
    #[prost(message, optional, tag = "1")]
    pub headers: Option<HeaderMap>,
    /// Neither body nor trailers follow.
    #[prost(bool, tag = "3")]
    pub end_of_stream: bool,
}

/// A piece of a body.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpBody {
    /// The bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
    /// Nothing follows.
    #[prost(bool, tag = "2")]
    pub end_of_stream: bool,
}

/// Trailers of a request or response.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpTrailers {
    /// The trailers.
    #[prost(message, optional, tag = "1")]
    pub trailers: Option<HeaderMap>,
}

/// A list of headers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMap {
    /// In the order they came.
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

/// One header.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    /// Name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value as older proxies send it.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Value; it wins if it is not empty.
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: Bytes,
}

/// `envoy.config.core.v3.Metadata`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metadata {
    /// Entries of `filter_metadata`: a namespace and its struct.
    #[prost(message, repeated, tag = "1")]
    pub filter_metadata: Vec<NamedStruct>,
}

/// One namespace of filter metadata.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NamedStruct {
    /// Namespace.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// Its fields.
    #[prost(message, optional, tag = "2")]
    pub fields: Option<Struct>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// Its fields.
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<Field>,
}

/// One field of a [`Struct`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Field {
    /// Name.
    #[prost(bytes = "bytes", tag = "1")]
    pub name: Bytes,
    /// Value.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Value>,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// The value.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// The kinds of [`Value`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// JSON `null`.
    #[prost(int32, tag = "1")]
    Null(i32),
    /// A number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// Text.
    #[prost(bytes = "bytes", tag = "3")]
    Text(Bytes),
    /// `true` or `false`.
    #[prost(bool, tag = "4")]
    Bool(bool),
    /// An object.
    #[prost(message, tag = "5")]
    Struct(Struct),
    /// A list.
    #[prost(message, tag = "6")]
    List(List),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct List {
    /// Its items.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

/// A message to the proxy.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingResponse {
    /// The answer.
    #[prost(oneof = "Response", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub response: Option<Response>,
    /// Metadata that other filters of the proxy see.
    #[prost(message, optional, tag = "8")]
    pub dynamic_metadata: Option<Struct>,
    /// Modes for the rest of the stream, beside an answer to request headers. The proxy heeds it if it is set to allow
    /// that.
    #[prost(message, optional, tag = "9")]
    pub mode_override: Option<ProcessingMode>,
}

/// `envoy.extensions.filters.http.ext_proc.v3.ProcessingMode`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ProcessingMode {
    /// `ProcessingMode.BodySendMode` of the request.
    #[prost(int32, tag = "3")]
    pub request_body_mode: i32,
    /// `ProcessingMode.BodySendMode` of the response.
    #[prost(int32, tag = "4")]
    pub response_body_mode: i32,
}

/// The kinds of [`ProcessingResponse`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Response {
    /// Answers request headers.
    #[prost(message, tag = "1")]
    RequestHeaders(HeadersResponse),
    /// Answers response headers.
    #[prost(message, tag = "2")]
    ResponseHeaders(HeadersResponse),
    /// Answers request body.
    #[prost(message, tag = "3")]
    RequestBody(BodyResponse),
    /// Answers response body.
    #[prost(message, tag = "4")]
    ResponseBody(BodyResponse),
    /// Answers request trailers.
    #[prost(message, tag = "5")]
    RequestTrailers(TrailersResponse),
    /// Answers response trailers.
    #[prost(message, tag = "6")]
    ResponseTrailers(TrailersResponse),
    /// Answers the client in the model server's place.
    #[prost(message, tag = "7")]
    ImmediateResponse(ImmediateResponse),
}

/// Answer to headers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeadersResponse {
    /// The answer.
    #[prost(message, optional, tag = "1")]
    pub response: Option<CommonResponse>,
}

/// Answer to a body or a piece of it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BodyResponse {
    /// The answer.
    #[prost(message, optional, tag = "1")]
    pub response: Option<CommonResponse>,
}

/// Answer to trailers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TrailersResponse {
    /// Changes to the trailers.
    #[prost(message, optional, tag = "1")]
    pub header_mutation: Option<HeaderMutation>,
}

/// The fields that the answers have in common.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommonResponse {
    /// Changes to the headers.
    #[prost(message, optional, tag = "2")]
    pub header_mutation: Option<HeaderMutation>,
    /// Changes to the body.
    #[prost(message, optional, tag = "3")]
    pub body_mutation: Option<BodyMutation>,
    /// Choose the route anew.
    #[prost(bool, tag = "5")]
    pub clear_route_cache: bool,
}

/// Changes to headers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMutation {
    /// Headers to set.
    #[prost(message, repeated, tag = "1")]
    pub set_headers: Vec<HeaderValueOption>,
    /// Names of headers to remove.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub remove_headers: Vec<Bytes>,
}

/// One header to set.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    /// Name and value.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// `HeaderAppendAction`.
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// Changes to a body.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BodyMutation {
    /// The change.
    #[prost(oneof = "Mutation", tags = "1, 2, 3")]
    pub mutation: Option<Mutation>,
}

/// The kinds of [`BodyMutation`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Mutation {
    /// Replaces the body, or the piece.
    #[prost(bytes = "bytes", tag = "1")]
    Body(Bytes),
    /// Empties the body, or the piece.
    #[prost(bool, tag = "2")]
    ClearBody(bool),
    /// A piece of the new body, in full-duplex mode.
    #[prost(message, tag = "3")]
    StreamedResponse(StreamedBodyResponse),
}

/// A piece of a body in full-duplex mode.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamedBodyResponse {
    /// The bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
    /// Nothing follows.
    #[prost(bool, tag = "2")]
    pub end_of_stream: bool,
}

/// An answer to the client.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImmediateResponse {
    /// HTTP status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// Headers of the answer.
    #[prost(message, optional, tag = "2")]
    pub headers: Option<HeaderMutation>,
    /// Body of the answer.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
    /// gRPC status, which replaces the HTTP answer for gRPC clients.
    #[prost(message, optional, tag = "4")]
    pub grpc_status: Option<GrpcStatus>,
    /// Shown in the proxy's access log.
    #[prost(string, tag = "5")]
    pub details: String,
}

/// An HTTP status.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HttpStatus {
    /// The number.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// A gRPC status.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct GrpcStatus {
    /// The number.
    #[prost(uint32, tag = "1")]
    pub status: u32,
}

/// `OVERWRITE_IF_EXISTS_OR_ADD` of `HeaderValueOption.HeaderAppendAction`.
pub const OVERWRITE: i32 = 2;
