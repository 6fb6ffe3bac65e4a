//! The bodies of the calls to prefill and decode servers, connector by connector.

use bytes::Bytes;
use serde_json::{Value, json};

use super::api::{Api, Caps};
use super::target::Target;
use crate::request::{Edits, JsonObject};

/// Transfer parameters that ask a prefill server to keep the cache of the prompt. Whitespace-free, as all that is set.
const KEEP: &str = r#"{"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null}"#;

/// Pieces of a body.
pub(super) type Pieces = smallvec::SmallVec<[Bytes; 3]>;

/// The prompt's cache at another server, for the connector that pulls from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KvSource {
    /// Names the pull.
    pub id: String,
    /// Who has it.
    pub host: String,
    /// Its port of the peer-to-peer tier.
    pub port: u16,
}

impl KvSource {
    fn to_json(&self) -> Value {
        json!({ "kv_request_id": self.id, "remote_host": self.host, "remote_port": self.port })
    }
}

/// The body of a request and what all calls have in common.
#[derive(Clone, Copy)]
pub(super) struct Body<'b> {
    /// The client's body.
    pub object: &'b JsonObject,
    /// Its API.
    pub api: Api,
}

impl Body<'_> {
    fn prefill(self, caps: Caps, edits: &mut Edits) -> Pieces {
        self.api.cap(self.object, caps, edits);
        edits.set("stream", "false").remove("stream_options");
        self.object.edited(edits)
    }

    /// `nixlv2`: the prefill server keeps the cache, and pulls what `source` has of it.
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

    /// The body with these transfer parameters; what the client said of them is gone.
    pub(super) fn with_parameters(self, parameters: Bytes) -> Pieces {
        let mut edits = Edits::new();
        edits.set("kv_transfer_params", parameters);
        self.object.edited(&edits)
    }

    /// A prefill call of a connector that asks both servers at once.
    pub(super) fn concurrent_prefill(self, parameters: &Value) -> Pieces {
        let mut edits = Edits::new();
        edits.set("kv_transfer_params", parameters.to_string());
        self.prefill(Caps::Needed, &mut edits)
    }

    /// A prefill call of MoRI-IO's write mode.
    pub(super) fn write_mode_prefill(self, parameters: &Value) -> Pieces {
        let mut edits = Edits::new();
        edits.set("kv_transfer_params", parameters.to_string());
        self.prefill(Caps::All, &mut edits)
    }

    /// `nixl`: the prefill server keeps the cache. Its protocol caps nothing; one token is enough all the same.
    pub(super) fn nixl_v1_prefill(self) -> Pieces {
        let mut edits = Edits::new();
        edits.set("do_remote_decode", "true");
        self.prefill(Caps::Bounds, &mut edits)
    }

    /// `nixl`: the decode server fetches what the prefill server's answer says.
    pub(super) fn nixl_v1_decode(self, answer: &JsonObject) -> Pieces {
        let mut edits = Edits::new();
        edits.set("do_remote_prefill", "true");
        for name in ["remote_block_ids", "remote_engine_id", "remote_host", "remote_port"] {
            edits.set(name, answer.get(name).unwrap_or_else(|| Bytes::from_static(b"null")));
        }
        self.object.edited(&edits)
    }

    /// `lmcache`: the prefill server fills the store. The client's `stream` stays.
    pub(super) fn lmcache_prefill(self) -> Pieces {
        let mut edits = Edits::new();
        self.api.cap(self.object, Caps::Bounds, &mut edits);
        self.object.edited(&edits)
    }

    /// `shared-storage`: the prefill server processes the prompt whatever it has of it.
    pub(super) fn shared_storage_prefill(self) -> Pieces {
        let mut edits = Edits::new();
        edits.set("cache_hit_threshold", "0");
        self.api.cap(self.object, Caps::Bounds, &mut edits);
        self.object.edited(&edits)
    }

    /// `shared-storage`: the decode server answers whatever it has of the prompt.
    pub(super) fn shared_storage_decode(self) -> Pieces {
        let mut edits = Edits::new();
        edits.set("cache_hit_threshold", "0");
        self.object.edited(&edits)
    }

    /// `sglang`: both servers meet in this room.
    pub(super) fn sglang(self, prefill: &Target, port: u16, room: u64) -> Pieces {
        let mut edits = Edits::new();
        edits
            .set("bootstrap_host", crate::request::json_string(prefill.host()))
            .set("bootstrap_port", port.to_string())
            .set("bootstrap_room", room.to_string());
        self.object.edited(&edits)
    }

    /// The shortest answer to what the prefill server keeps, by which the engine tells it to let go.
    pub(super) fn release(self, parameters: Bytes) -> Pieces {
        let mut edits = Edits::new();
        edits.set("kv_transfer_params", parameters);
        self.prefill(Caps::Bounds, &mut edits)
    }
}

/// `mooncake`: what the prefill server is told.
pub(super) fn mooncake_prefill(transfer: &str) -> Value {
    json!({ "do_remote_prefill": false, "do_remote_decode": true, "transfer_id": transfer })
}

/// `mooncake`: what the decode server is told.
pub(super) fn mooncake_decode(transfer: &str, prefill: &Target, port: u16, engine: &str) -> Value {
    json!({
        "do_remote_prefill": true,
        "do_remote_decode": false,
        "transfer_id": transfer,
        "remote_bootstrap_addr": format!("http://{}:{port}", prefill.url_host()),
        "remote_engine_id": engine,
    })
}

/// `offloading`: what the prefill server is told.
pub(super) fn offloading_prefill(id: &str, source: Option<&KvSource>) -> Value {
    let mut parameters = json!({ "remote_decoder": { "kv_request_id": id } });
    if let Some(source) = source {
        parameters["remote_kv_source"] = source.to_json();
    }
    parameters
}

/// `offloading`: what the decode server is told.
pub(super) fn offloading_decode(id: &str, host: &str, port: u16) -> Value {
    json!({ "remote_prefiller": { "kv_request_id": id, "remote_host": host, "remote_port": port } })
}

/// `offloading` without a prefill server: what the local engine is told.
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
