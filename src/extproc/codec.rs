//! How messages travel: names of the service and codecs for both ends.

use tonic_prost::ProstCodec;

use super::wire::{ProcessingRequest, ProcessingResponse};

/// Full name of the gRPC service.
pub const SERVICE_NAME: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
/// Path of its one method.
pub const PROCESS_PATH: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// The proxy's end: sends requests, reads responses. For tests and load generators.
pub fn client_codec() -> ProstCodec<ProcessingRequest, ProcessingResponse> {
    ProstCodec::default()
}

/// This program's end.
pub(super) fn server_codec() -> ProstCodec<ProcessingResponse, ProcessingRequest> {
    ProstCodec::default()
}
