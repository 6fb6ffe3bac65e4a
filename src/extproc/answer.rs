//! Named constructors for each message to the proxy.

use bytes::Bytes;

use super::mode::Modes;
use super::wire::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeaderValue, HeaderValueOption,
    HeadersResponse, Mutation, OVERWRITE, ProcessingMode, ProcessingResponse, Response, StreamedBodyResponse,
    Struct, TrailersResponse,
};
use crate::scheduling::HeaderEdits;

/// Most bytes of a body in one message; some proxies accept no more than 64 KiB.
pub(super) const PIECE_BYTES: usize = 62_000;

/// Sets one header, replacing what is there.
pub(super) fn set_header(name: &'static str, value: Bytes) -> HeaderValueOption {
    overwrite(Bytes::from_static(name.as_bytes()), value)
}

fn overwrite(key: Bytes, raw_value: Bytes) -> HeaderValueOption {
    let header = HeaderValue { key, value: Bytes::new(), raw_value };
    HeaderValueOption { header: Some(header), append_action: OVERWRITE }
}

/// The mutation for these edits; `None` if there are none.
pub(super) fn mutation(edits: HeaderEdits) -> Option<HeaderMutation> {
    if edits.set.is_empty() && edits.remove.is_empty() {
        return None;
    }
    Some(HeaderMutation {
        set_headers: edits.set.into_iter().map(|(name, value)| overwrite(name, value)).collect(),
        remove_headers: edits.remove.into_vec(),
    })
}

fn message(response: Response) -> ProcessingResponse {
    ProcessingResponse { response: Some(response), ..ProcessingResponse::default() }
}

/// "Go on" to request headers that are decided on later.
pub(super) fn request_headers_go_on() -> ProcessingResponse {
    message(Response::RequestHeaders(HeadersResponse { response: Some(CommonResponse::default()) }))
}

/// The decision, as the answer to request headers. It may ask the proxy for other modes.
pub(super) fn request_headers(
    edits: HeaderEdits,
    metadata: Struct,
    ask_for: Option<Modes>,
) -> ProcessingResponse {
    let response =
        CommonResponse { header_mutation: mutation(edits), body_mutation: None, clear_route_cache: true };
    ProcessingResponse {
        response: Some(Response::RequestHeaders(HeadersResponse { response: Some(response) })),
        dynamic_metadata: Some(metadata),
        mode_override: ask_for.map(|modes| ProcessingMode {
            request_body_mode: modes.request.to_wire(),
            response_body_mode: modes.response.to_wire(),
        }),
    }
}

/// The decision, as the answer to a buffered request body; `body` if it changed.
pub(super) fn buffered_request(
    edits: HeaderEdits,
    metadata: Struct,
    body: Option<Bytes>,
) -> ProcessingResponse {
    let response = CommonResponse {
        header_mutation: mutation(edits),
        body_mutation: body.map(replace_body),
        clear_route_cache: true,
    };
    ProcessingResponse {
        response: Some(Response::RequestBody(BodyResponse { response: Some(response) })),
        dynamic_metadata: Some(metadata),
        mode_override: None,
    }
}

/// Answer to response headers.
pub(super) fn response_headers(edits: HeaderEdits) -> ProcessingResponse {
    let response = CommonResponse { header_mutation: mutation(edits), ..CommonResponse::default() };
    message(Response::ResponseHeaders(HeadersResponse { response: Some(response) }))
}

/// The body that an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

fn body(side: Side, body_mutation: Option<BodyMutation>) -> ProcessingResponse {
    let response = Some(CommonResponse { body_mutation, ..CommonResponse::default() });
    message(match side {
        Side::Request => Response::RequestBody(BodyResponse { response }),
        Side::Response => Response::ResponseBody(BodyResponse { response }),
    })
}

fn replace_body(bytes: Bytes) -> BodyMutation {
    let mutation = if bytes.is_empty() { Mutation::ClearBody(true) } else { Mutation::Body(bytes) };
    BodyMutation { mutation: Some(mutation) }
}

/// Answer to one piece of a response: unchanged, or these bytes instead. With `states_length` the piece is the whole
/// body, and its headers get the new length.
pub(super) fn response_piece(changed: Option<Bytes>, states_length: bool) -> ProcessingResponse {
    let length = changed.as_ref().filter(|_| states_length).map(|bytes| bytes.len().to_string());
    let header_mutation = length.map(|length| HeaderMutation {
        set_headers: vec![set_header("content-length", length.into())],
        remove_headers: Vec::new(),
    });
    let body_mutation = changed.map(replace_body);
    let response = Some(CommonResponse { header_mutation, body_mutation, clear_route_cache: false });
    message(Response::ResponseBody(BodyResponse { response }))
}

/// Answer to one piece: unchanged, or these bytes instead.
pub(super) fn piece(side: Side, changed: Option<Bytes>) -> ProcessingResponse {
    body(side, changed.map(replace_body))
}

/// Appends the full-duplex messages for `pieces`, each of at most [`PIECE_BYTES`]. With `end` the last one ends the
/// body, and there is at least one.
pub(super) fn streamed(
    side: Side,
    pieces: impl IntoIterator<Item = Bytes>,
    end: bool,
    out: &mut impl Extend<ProcessingResponse>,
) {
    let mut last: Option<Bytes> = None;
    for mut bytes in pieces {
        while !bytes.is_empty() {
            let cut = bytes.split_to(bytes.len().min(PIECE_BYTES));
            if let Some(before) = last.replace(cut) {
                out.extend([stream_piece(side, before, false)]);
            }
        }
    }
    match last {
        Some(bytes) => out.extend([stream_piece(side, bytes, end)]),
        None if end => out.extend([stream_piece(side, Bytes::new(), true)]),
        None => {}
    }
}

fn stream_piece(side: Side, bytes: Bytes, end_of_stream: bool) -> ProcessingResponse {
    let piece = StreamedBodyResponse { body: bytes, end_of_stream };
    body(side, Some(BodyMutation { mutation: Some(Mutation::StreamedResponse(piece)) }))
}

/// Answer to trailers: unchanged.
pub(super) fn trailers(side: Side) -> ProcessingResponse {
    let response = TrailersResponse::default();
    message(match side {
        Side::Request => Response::RequestTrailers(response),
        Side::Response => Response::ResponseTrailers(response),
    })
}
