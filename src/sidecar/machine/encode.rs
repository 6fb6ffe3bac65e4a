//! Sends the images, videos and sounds of a request to encode servers before its prompt is processed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::smallvec;

use super::request::Machine;
use super::state::{Encoding, Phase};
use super::types::{Call, Destination, Event, Leg, LegFailure, LegRequest, Rewrite};
use crate::request::{Edits, JsonObject, json_members, json_string};
use crate::sidecar::api::{Api, Caps, MEMBERS};
use crate::sidecar::connector::{EncodeConnector, Stage};
use crate::sidecar::media::media_items;
use crate::sidecar::outcome::{FailReason, Outcome};

/// The most encode calls that run at the same time for one request.
const AT_ONCE: usize = 8;

/// The header with the id of the request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Machine {
    /// Sends the first items to encode servers.
    pub(super) fn encode(&mut self) {
        let items = media_items(&self.ask.object);
        let servers = self.ask.route.encoders.len();
        // A request with fewer items than servers begins at a server of its own, or the first servers would do all the
        // work.
        let start = if items.len() < servers && !items.is_empty() {
            self.shared.encoder.fetch_add(items.len(), Relaxed) % servers
        } else {
            0
        };
        let mut encoding = Encoding { items, start, sent: 0, done: 0, parameters: BTreeMap::new() };
        while encoding.sent < encoding.items.len().min(AT_ONCE) {
            self.send_item(&mut encoding);
        }
        self.encoded_if_done(encoding);
    }

    fn send_item(&mut self, encoding: &mut Encoding) {
        let index = encoding.sent;
        let servers = &self.ask.route.encoders;
        let server = servers[(encoding.start + index) % servers.len()].clone();
        let Some(item) = encoding.items.get(index) else { return };
        let mut edits = Edits::new();
        let message = [b"[{\"role\":\"user\",\"content\":[".as_slice(), item, b"]}]"].concat();
        edits.set("messages", message).set("stream", "false").remove("stream_options");
        Api::Chat.cap(&self.ask.object, Caps::Needed, &mut edits);
        let id = format!("{}-enc-{index}", self.ask.request_id);
        let id = HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("enc"));
        let request = LegRequest {
            to: Destination::Server(server),
            path: Some(Api::Chat.path()),
            headers: smallvec![
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                (REQUEST_ID, id)
            ],
            client_headers: false,
            body: Some(self.ask.object.edited(&edits)),
            limit: self.settings().limits.encode,
        };
        encoding.sent += 1;
        self.call(Call::Send(Leg::Encode(index as u16), Box::new(request)));
    }

    pub(super) fn on_encode(&mut self, mut encoding: Encoding, event: Event) {
        match event {
            Event::Head(leg @ Leg::Encode(_), status) if status.is_success() => {
                let read = self.settings().encode == Some(EncodeConnector::Nixl);
                self.call(if read { Call::Collect(leg) } else { Call::Drain(leg) });
            }
            // The client's request is at fault, so the client gets the server's answer.
            Event::Head(leg @ Leg::Encode(_), status) if status.is_client_error() => {
                self.cancel_others(&encoding, leg);
                self.call(Call::Outcome(Outcome::Failed(FailReason::Status(Stage::Encode))));
                self.call(Call::Relay(leg, Rewrite::Nothing));
                return;
            }
            Event::Head(leg @ Leg::Encode(_), _) => {
                return self.encode_failed(
                    &encoding,
                    leg,
                    FailReason::Status(Stage::Encode),
                    "it answered with an error",
                );
            }
            Event::Failed(leg @ Leg::Encode(_), failure) => {
                return self.encode_failed(&encoding, leg, failure.reason(Stage::Encode), failure.text());
            }
            Event::Body(leg @ Leg::Encode(index), body) => {
                if self.settings().encode == Some(EncodeConnector::Nixl) {
                    let Ok(answer) = JsonObject::read(body, &["ec_transfer_params"]) else {
                        let failure = LegFailure::Garbage;
                        return self.encode_failed(
                            &encoding,
                            leg,
                            failure.reason(Stage::Encode),
                            failure.text(),
                        );
                    };
                    encoding.parameters.extend(answer.get("ec_transfer_params").map(|value| (index, value)));
                }
                encoding.done += 1;
                if encoding.sent < encoding.items.len() {
                    self.send_item(&mut encoding);
                }
            }
            _ => {}
        }
        self.encoded_if_done(encoding);
    }

    fn cancel_others(&mut self, encoding: &Encoding, leg: Leg) {
        for index in 0..encoding.sent as u16 {
            if Leg::Encode(index) != leg {
                self.call(Call::Cancel(Leg::Encode(index)));
            }
        }
    }

    fn encode_failed(&mut self, encoding: &Encoding, leg: Leg, reason: FailReason, text: &str) {
        self.cancel_others(encoding, leg);
        self.call(Call::Cancel(leg));
        self.refuse(reason, StatusCode::BAD_GATEWAY, format!("an encode server failed: {text}"));
    }

    /// Once all items are encoded, adds the transfer parameters to the body and goes on with the prompt.
    fn encoded_if_done(&mut self, encoding: Encoding) {
        if encoding.done < encoding.items.len() {
            self.phase = Phase::Encode(encoding);
            return;
        }
        let mut edits = Edits::new();
        edits.set("cache_hit_threshold", "0");
        if let Some(parameters) = merged(encoding.parameters.values()) {
            edits.set("ec_transfer_params", parameters);
        }
        let body = Bytes::from(self.ask.object.edited(&edits).concat());
        match JsonObject::read(body, MEMBERS) {
            Ok(object) => self.ask.object = object,
            Err(error) => return self.refuse(FailReason::Body, StatusCode::BAD_REQUEST, error.to_string()),
        }
        self.connect();
    }
}

/// Returns one object with the members of all objects. If a name is repeated, its last value counts. `None` if there
/// are no members.
fn merged<'p>(parameters: impl Iterator<Item = &'p Bytes>) -> Option<Bytes> {
    let mut members: Vec<(String, Bytes)> = Vec::new();
    for (name, value) in parameters.filter_map(json_members).flatten() {
        match members.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => members.push((name, value)),
        }
    }
    if members.is_empty() {
        return None;
    }
    let mut text = Vec::from(*b"{");
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend_from_slice(&json_string(name));
        text.push(b':');
        text.extend_from_slice(value);
    }
    text.push(b'}');
    Some(Bytes::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_merged_and_the_last_of_a_name_counts() {
        let values: Vec<Bytes> = ["{\"a\":1}", "null", "{}", "[1]", "{\"b\":{},\"a\":18446744073709551616}"]
            .map(Bytes::from)
            .to_vec();
        assert_eq!(merged(values.iter()).unwrap(), "{\"a\":18446744073709551616,\"b\":{}}");
        assert_eq!(merged([].iter()), None);
    }
}
