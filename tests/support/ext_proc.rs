//! The proxy's end of an ext_proc stream, for messages that Envoy would never send.

use std::net::SocketAddr;

use bytes::Bytes;
use http::uri::PathAndQuery;
use pointsman::extproc::wire::{
    HeaderMap, HeaderValue, HttpBody, HttpHeaders, HttpTrailers, ProcessingRequest, ProcessingResponse,
    Request, Response,
};
use pointsman::extproc::{PROCESS_PATH, client_codec};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::poll::within;

/// A connection to the picker, in plaintext.
pub(crate) struct Proxy {
    channel: Channel,
}

/// One stream.
pub(crate) struct Exchange {
    messages: mpsc::Sender<ProcessingRequest>,
    answers: Streaming<ProcessingResponse>,
}

impl Proxy {
    /// Connects.
    pub(crate) async fn connect(grpc: SocketAddr) -> Self {
        let channel = Channel::from_shared(format!("http://{grpc}")).unwrap().connect().await.unwrap();
        Self { channel }
    }

    /// Opens a stream.
    pub(crate) async fn open(&self) -> Exchange {
        self.open_with(&[]).await
    }

    /// Opens a stream with this metadata.
    pub(crate) async fn open_with(&self, metadata: &[(&'static str, &str)]) -> Exchange {
        let (messages, queue) = mpsc::channel(1024);
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static(PROCESS_PATH);
        let mut request = tonic::Request::new(ReceiverStream::new(queue));
        for (name, value) in metadata {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        let opened = client.streaming(request, path, client_codec());
        let answers = within("an open stream", opened).await.unwrap().into_inner();
        Exchange { messages, answers }
    }
}

impl Exchange {
    /// Sends a message; it does not matter if the picker has hung up.
    pub(crate) async fn tell(&self, message: ProcessingRequest) {
        let _ = self.messages.send(message).await;
    }

    /// Sends one of the six kinds.
    pub(crate) async fn say(&self, request: Request) {
        self.tell(ProcessingRequest { request: Some(request), ..ProcessingRequest::default() }).await;
    }

    /// The next answer; `None` at the end of the stream.
    pub(crate) async fn answer(&mut self) -> Option<Result<Response, Status>> {
        Some(self.message().await?.map(|message| message.response.unwrap()))
    }

    /// The next answer with all that comes beside it; `None` at the end of the stream.
    pub(crate) async fn message(&mut self) -> Option<Result<ProcessingResponse, Status>> {
        within("an answer", self.answers.message()).await.transpose()
    }

    /// Says that nothing follows, and gives all answers that are left.
    pub(crate) async fn finish(self) -> Vec<Result<Response, Status>> {
        let Self { messages, answers } = self;
        drop(messages);
        let mut left = Self { messages: mpsc::channel(1).0, answers };
        let mut all = Vec::new();
        while let Some(answer) = left.answer().await {
            let ends = answer.is_err();
            all.push(answer);
            if ends {
                break;
            }
        }
        all
    }
}

/// Request headers of a POST with these further ones.
pub(crate) fn headers(
    path: &str,
    further: impl IntoIterator<Item = (Bytes, Bytes)>,
    end_of_stream: bool,
) -> Request {
    let usual =
        [(":method", "POST"), (":path", path), (":authority", "pool"), ("content-type", "application/json")];
    let usual = usual.map(|(name, value)| {
        (Bytes::copy_from_slice(name.as_bytes()), Bytes::copy_from_slice(value.as_bytes()))
    });
    let headers = usual.into_iter().chain(further);
    let headers =
        headers.map(|(key, raw_value)| HeaderValue { key, raw_value, ..HeaderValue::default() }).collect();
    Request::RequestHeaders(HttpHeaders { headers: Some(HeaderMap { headers }), end_of_stream })
}

/// Response headers with this status, and a body to come.
pub(crate) fn response_headers(status: &str) -> Request {
    let raw_value = Bytes::copy_from_slice(status.as_bytes());
    let header = HeaderValue { key: Bytes::from_static(b":status"), raw_value, ..HeaderValue::default() };
    let headers = Some(HeaderMap { headers: vec![header] });
    Request::ResponseHeaders(HttpHeaders { headers, end_of_stream: false })
}

/// A piece of a request body.
pub(crate) fn body(bytes: impl Into<Bytes>, end_of_stream: bool) -> Request {
    Request::RequestBody(HttpBody { body: bytes.into(), end_of_stream })
}

/// Request trailers without any.
pub(crate) fn trailers() -> Request {
    Request::RequestTrailers(HttpTrailers::default())
}

/// The destination that an answer to request headers sets.
pub(crate) fn destination(answer: &Response) -> Option<String> {
    let Response::RequestHeaders(_) = answer else { return None };
    sets(answer, "x-gateway-destination-endpoint").pop()
}

/// Every value that an answer to headers sets for this header, in order.
pub(crate) fn sets(answer: &Response, name: &str) -> Vec<String> {
    let (Response::RequestHeaders(answer) | Response::ResponseHeaders(answer)) = answer else {
        return Vec::new();
    };
    let mutation = answer.response.as_ref().and_then(|response| response.header_mutation.as_ref());
    let options = mutation.map(|mutation| mutation.set_headers.as_slice()).unwrap_or_default();
    let headers = options.iter().filter_map(|option| option.header.as_ref());
    let named = headers.filter(|header| header.key.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|header| String::from_utf8(header.raw_value.to_vec()).unwrap()).collect()
}
