//! The bodies of the calls to prefill and decode servers, one function for each connector.

use bytes::Bytes;
use serde_json::{Value, json};

use super::api::{Api, Caps};
use super::target::Target;
use crate::request::{Edits, JsonObject};

/// The transfer parameters that ask a prefill server to keep the cache of the prompt. They are written without spaces,
/// as are all members that the sidecar sets.
const KEEP: &str = r#"{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}"#;

/// The pieces of a body, in order. Pieces that the sidecar did not change are slices of the client's body.
pub(super) type Pieces = smallvec::SmallVec<[Bytes; 3]>;

/// A server that already has a part of the prompt's cache, for connectors that pull from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KvSource {
    /// The id of the pull.
    pub id: String,
    /// The host name or address of that server.
    pub host: String,
    /// The port of the peer-to-peer cache tier on that server.
    pub port: u16,
}

impl KvSource {
    fn to_json(&self) -> Value {
        json!({ "kv_request_id": self.id, "remote_host": self.host, "remote_port": self.port })
    }
}

/// The client's body and its API, from which the bodies of all calls are made.
#[derive(Clone, Copy)]
pub(super) struct Body<'b> {
    /// The body as the client sent it.
    pub object: &'b JsonObject,
    /// The API that the client called.
    pub api: Api,
}

impl Body<'_> {
    fn prefill(self, caps: Caps, edits: &mut Edits) -> Pieces {
        self.api.cap(self.object, caps, edits);
        edits.set("stream", "false").remove("stream_options");
        self.object.edited(edits)
    }

    /// `nixlv2`: the prefill server keeps the cache of the prompt. It pulls the part that `source` already has.
    pub(super) fn nixl_v2_prefill(self, source: Option<&KvSource>) -> Pieces {
        let mut parameters = KEEP.to_owned();
        if let Some(source) = source {
            parameters.pop();
            parameters.push_str(&format!(",\"remote_kv_source\":{}}}", source.to_json()));
        }
        let mut edits = Edits::new();
        edits.set("kv_transfer_params", parameters);
        self.prefill(Caps::All, &mut edits)
    }

    /// The client's body with these transfer parameters in place of the client's.
    pub(super) fn with_parameters(self, parameters: Bytes) -> Pieces {
        let mut edits = Edits::new();
        edits.set("kv_transfer_params", parameters);
        self.object.edited(&edits)
    }

    /// The prefill call of a connector that asks both servers at the same time.
    pub(super) fn concurrent_prefill(self, parameters: &Value) -> Pieces {
        let mut edits = Edits::new();
        edits.set("kv_transfer_params", parameters.to_string());
        self.prefill(Caps::Needed, &mut edits)
    }

    /// The prefill call of MoRI-IO's write mode.
    pub(super) fn write_mode_prefill(self, parameters: &Value) -> Pieces {
        let mut edits = Edits::new();
        edits.set("kv_transfer_params", parameters.to_string());
        self.prefill(Caps::All, &mut edits)
    }

    /// `nixl`: the prefill server keeps the cache of the prompt. The protocol does not limit the prefill server's
    /// answer; the sidecar limits it to one token.
    pub(super) fn nixl_v1_prefill(self) -> Pieces {
        let mut edits = Edits::new();
        edits.set("do_remote_decode", "true");
        self.prefill(Caps::Bounds, &mut edits)
    }

    /// `nixl`: the decode server fetches the cache blocks that the prefill server's `answer` names.
    pub(super) fn nixl_v1_decode(self, answer: &JsonObject) -> Pieces {
        let mut edits = Edits::new();
        edits.set("do_remote_prefill", "true");
        for name in ["remote_block_ids", "remote_engine_id", "remote_host", "remote_port"] {
            edits.set(name, answer.get(name).unwrap_or_else(|| Bytes::from_static(b"null")));
        }
        self.object.edited(&edits)
    }

    /// `lmcache`: the prefill server fills the store that both servers share. The client's `stream` is kept.
    pub(super) fn lmcache_prefill(self) -> Pieces {
        let mut edits = Edits::new();
        self.api.cap(self.object, Caps::Bounds, &mut edits);
        self.object.edited(&edits)
    }

    /// `shared-storage`: the prefill server processes the prompt, even if it has little of it in its cache.
    pub(super) fn shared_storage_prefill(self) -> Pieces {
        let mut edits = Edits::new();
        edits.set("cache_hit_threshold", "0");
        self.api.cap(self.object, Caps::Bounds, &mut edits);
        self.object.edited(&edits)
    }

    /// `shared-storage`: the decode server answers, even if it has little of the prompt in its cache.
    pub(super) fn shared_storage_decode(self) -> Pieces {
        let mut edits = Edits::new();
        edits.set("cache_hit_threshold", "0");
        self.object.edited(&edits)
    }

    /// `sglang`: both servers get the same body, which names the room in which they meet.
    pub(super) fn sglang(self, prefill: &Target, port: u16, room: u64) -> Pieces {
        let mut edits = Edits::new();
        edits
            .set("bootstrap_host", crate::request::json_string(prefill.host()))
            .set("bootstrap_port", port.to_string())
            .set("bootstrap_room", room.to_string());
        self.object.edited(&edits)
    }

    /// The shortest request that uses the cache which the prefill server keeps. When the engine has answered it, the
    /// prefill server frees the cache.
    pub(super) fn release(self, parameters: Bytes) -> Pieces {
        let mut edits = Edits::new();
        edits.set("kv_transfer_params", parameters);
        self.prefill(Caps::Bounds, &mut edits)
    }
}

/// `mooncake`: the transfer parameters of the prefill call.
pub(super) fn mooncake_prefill(transfer: &str) -> Value {
    json!({ "do_remote_prefill": false, "do_remote_decode": true, "transfer_id": transfer })
}

/// `mooncake`: the transfer parameters of the decode call.
pub(super) fn mooncake_decode(transfer: &str, prefill: &Target, port: u16, engine: &str) -> Value {
    json!({
        "do_remote_prefill": true,
        "do_remote_decode": false,
        "transfer_id": transfer,
        "remote_bootstrap_addr": format!("http://{}:{port}", prefill.url_host()),
        "remote_engine_id": engine,
    })
}

/// `offloading`: the transfer parameters of the prefill call.
pub(super) fn offloading_prefill(id: &str, source: Option<&KvSource>) -> Value {
    let mut parameters = json!({ "remote_decoder": { "kv_request_id": id } });
    if let Some(source) = source {
        parameters["remote_kv_source"] = source.to_json();
    }
    parameters
}

/// `offloading`: the transfer parameters of the decode call.
pub(super) fn offloading_decode(id: &str, host: &str, port: u16) -> Value {
    json!({ "remote_prefiller": { "kv_request_id": id, "remote_host": host, "remote_port": port } })
}

/// `offloading` without a prefill server: the transfer parameters by which the local engine pulls the cache from
/// `source`.
pub(super) fn pull(source: &KvSource) -> Value {
    json!({ "remote_kv_source": source.to_json() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::api::MEMBERS;

    fn object(body: &str) -> JsonObject {
        JsonObject::read(Bytes::copy_from_slice(body.as_bytes()), MEMBERS).unwrap()
    }

    fn value(pieces: &Pieces) -> Value {
        serde_json::from_slice(&pieces.concat()).unwrap()
    }

    #[test]
    fn nixl_v2_asks_for_one_token_and_keeps_what_the_client_wrote() {
        let object = object(
            r#"{"seed":12345678901234567890,"stream":true,"stream_options":{"include_usage":true},"max_tokens":50}"#,
        );
        let body = Body { object: &object, api: Api::Chat };
        let text = String::from_utf8(body.nixl_v2_prefill(None).concat()).unwrap();
        assert_eq!(
            text,
            format!(
                r#"{{"kv_transfer_params":{KEEP},"max_completion_tokens":1,"min_tokens":1,"seed":12345678901234567890,"stream":false,"max_tokens":1}}"#
            )
        );
        let text = body.with_parameters(Bytes::from_static(b"{\"x\" : 1e999}")).concat();
        assert!(text.starts_with(b"{\"kv_transfer_params\":{\"x\" : 1e999},\"seed\""));
    }

    #[test]
    fn a_source_of_caches_stands_beside_the_other_parameters() {
        let object = object("{}");
        let source = KvSource { id: "v".into(), host: "10.0.0.7".into(), port: 7777 };
        let body = Body { object: &object, api: Api::Chat };
        let prefill = value(&body.nixl_v2_prefill(Some(&source)));
        assert_eq!(prefill["kv_transfer_params"]["remote_kv_source"]["remote_port"], 7777);
        assert_eq!(prefill["kv_transfer_params"]["do_remote_decode"], true);
        assert_eq!(offloading_prefill("u", Some(&source))["remote_kv_source"]["kv_request_id"], "v");
    }

    #[test]
    fn an_address_of_version_6_stands_in_brackets() {
        let target = Target::parse("[fd00::2]:8000").unwrap();
        let parameters = mooncake_decode("xfer-1", &target, 8998, "A");
        assert_eq!(parameters["remote_bootstrap_addr"], "http://[fd00::2]:8998");
    }
}
