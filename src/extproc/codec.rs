//! Names of the service, and codecs for both ends of a stream.

use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use super::wire::{ProcessingRequest, ProcessingResponse};

/// Full name of the gRPC service.
pub const SERVICE_NAME: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
/// Path of its one method.
pub const PROCESS_PATH: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// The proxy's end: sends requests, reads responses. For tests and load generators.
pub fn client_codec() -> ProstCodec<ProcessingRequest, ProcessingResponse> {
    ProstCodec::default()
}

/// This program's end. It encodes only: messages are read in `inbound`.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerCodec;

impl Codec for ServerCodec {
    type Encode = ProcessingResponse;
    type Decode = ProcessingRequest;
    type Encoder = ProstEncoder<ProcessingResponse>;
    type Decoder = ProstDecoder<ProcessingRequest>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        // No buffer is allocated for a reader that has nothing to read.
        ProstDecoder::new(BufferSettings::new(0, 0))
    }
}
