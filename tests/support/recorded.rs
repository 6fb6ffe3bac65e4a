//! The program in front of one server that keeps what it gets.

use bytes::Bytes;

use super::{BodyMode, EndpointsFile, Envoy, Pointsman, Recorder, SCORERS, config};

/// The program and the server; an Envoy in front comes with the modes that a test asks for.
pub(crate) struct Recorded {
    pub(crate) pointsman: Pointsman,
    pub(crate) server: Recorder,
    _endpoints: EndpointsFile,
}

impl Recorded {
    /// Both, with these rules for models.
    pub(crate) async fn start(rewrites: &str) -> Self {
        let server = Recorder::start().await;
        let endpoints =
            EndpointsFile::of(&format!("{}{rewrites}", EndpointsFile::listed([("only", server.addr)])));
        let pointsman = Pointsman::start(&config(&endpoints.path(), SCORERS), &[]).await;
        Self { pointsman, server, _endpoints: endpoints }
    }

    /// An Envoy with these body modes.
    pub(crate) async fn envoy(&self, request: BodyMode, response: BodyMode) -> Envoy {
        Envoy::start_in_modes(self.pointsman.grpc, request, response).await
    }

    /// The body that the server received last.
    pub(crate) fn last(&self) -> Bytes {
        self.server.received().last().map(|received| received.body.clone()).unwrap_or_default()
    }
}
