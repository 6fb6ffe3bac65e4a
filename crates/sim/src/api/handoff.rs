//! The transfer parameters of disaggregated serving in requests and answers.
//!
//! A server without a role has no KV connector. It ignores these members and computes every prompt, as engines do.
//! Where two servers would agree in other ways (a bootstrap server, a peer-to-peer tier), only the time is simulated:
//! the decode server waits as long as a prefill server of its own speed takes.

use std::fmt::Write as _;

use serde_json::Value;

use super::error::ApiError;
use super::json::quoted;
use crate::config::{Role, unix_seconds};
use crate::engine::{Fetch, tokens};

/// The seconds for which an engine keeps blocks that no server has fetched.
const LEASE_SECONDS: f64 = 480.0;
/// The port of the engines' side channels, for KV blocks and for encoded media.
const KV_PORT: u16 = 5600;
const EC_PORT: u16 = 5601;

/// What a request asks of the other stage.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Handoff {
    /// True if the answer says where the prompt's blocks are.
    pub(crate) offers: bool,
    /// True if the server writes one token, whatever the limit.
    pub(crate) only_prefills: bool,
    /// The source of the prompt's blocks.
    pub(crate) fetch: Fetch,
    /// The share of the prompt, 0 to 1, that must be cached. If less is cached, nothing is computed.
    pub(crate) threshold: Option<f64>,
    /// The hashes of the media that the answer offers, each once.
    pub(crate) media: Vec<String>,
}

/// The members of a body that carry the parameters.
#[derive(Debug, Default)]
pub(super) struct Members<'b> {
    pub(super) kv_transfer_params: Option<&'b Value>,
    pub(super) bootstrap_host: Option<&'b Value>,
    pub(super) bootstrap_room: Option<&'b Value>,
    pub(super) cache_hit_threshold: Option<&'b Value>,
}

impl Handoff {
    /// Reads the members as a server of this role does.
    pub(super) fn read(role: Option<Role>, members: &Members<'_>) -> Result<Self, ApiError> {
        let threshold = match members.cache_hit_threshold {
            None | Some(Value::Null) => None,
            Some(given) => {
                Some(given.as_f64().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| {
                    ApiError::bad_request(format!("cache_hit_threshold must be between 0 and 1, got {given}"))
                })?)
            }
        };
        let mut handoff = Self { threshold, ..Self::default() };
        let (prefills, decodes) = (role.is_some_and(Role::prefills), role.is_some_and(Role::decodes));
        if let Some(params) = members.kv_transfer_params {
            handoff.offers =
                prefills && params["do_remote_decode"] == true && params.get("transfer_id").is_none();
            handoff.only_prefills = prefills && params.get("remote_decoder").is_some_and(Value::is_object);
            if decodes {
                handoff.fetch = fetch(params);
            }
        }
        if let Some(room) = members.bootstrap_room.filter(|room| !room.is_null() && (prefills || decodes)) {
            if room.as_i64().is_none() || !members.bootstrap_host.is_some_and(Value::is_string) {
                return Err(ApiError::bad_request(
                    "bootstrap_room needs a whole number, and bootstrap_host a text",
                ));
            }
            // The request does not tell a server of both roles which stage is meant.
            handoff.only_prefills |= role == Some(Role::Prefill);
            if role == Some(Role::Decode) {
                handoff.fetch = Fetch::WhenPrefilled;
            }
        }
        Ok(handoff)
    }

    /// The `kv_transfer_params` of the answer, by which a decode server fetches the blocks of `prompt_tokens` tokens.
    pub(super) fn kv_params(
        &self,
        engine: &str,
        host: &str,
        id: &str,
        blocks: usize,
        prompt_tokens: usize,
    ) -> String {
        if !self.offers {
            return "null".to_owned();
        }
        let mut ids = String::new();
        for block in 0..blocks {
            // Writing to a string cannot fail.
            let _ = write!(ids, "{}{block}", if block == 0 { "" } else { "," });
        }
        let (engine, host, id) = (quoted(engine), quoted(host), quoted(id));
        let expires = unix_seconds() + LEASE_SECONDS;
        format!(
            r#"{{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[{ids}]],"remote_engine_id":{engine},"remote_request_id":{id},"remote_host":{host},"remote_port":{KV_PORT},"tp_size":1,"remote_num_tokens":{prompt_tokens},"remote_blocks_expiry_time":{expires:.3}}}"#
        )
    }

    /// The `ec_transfer_params` of the answer, which say where the encoded media are. `None` if there are no media.
    pub(super) fn ec_params(&self, host: &str) -> Option<String> {
        let host = quoted(host);
        let one = |hash: &String| format!(r#""{hash}":{{"peer_host":{host},"peer_port":{EC_PORT}}}"#);
        let all: Vec<String> = self.media.iter().map(one).collect();
        (!all.is_empty()).then(|| format!("{{{}}}", all.join(",")))
    }
}

/// The source of the prompt's blocks. With incomplete parameters nothing is fetched, and the prompt is computed.
fn fetch(params: &Value) -> Fetch {
    if params.get("remote_prefiller").is_some_and(Value::is_object) {
        return Fetch::WhenPrefilled;
    }
    let text = |name: &str| params[name].as_str().is_some_and(|text| !text.is_empty());
    if params["do_remote_prefill"] != true || !text("remote_engine_id") {
        return Fetch::Nothing;
    }
    if text("transfer_id") {
        return Fetch::WhenPrefilled;
    }
    let blocks = params["remote_block_ids"].as_array().is_some_and(|ids| !ids.is_empty());
    let complete =
        blocks && text("remote_request_id") && text("remote_host") && params["remote_port"].is_u64();
    if complete { Fetch::Now } else { Fetch::Nothing }
}

/// Appends to `out` the hashes of the images, videos and sounds in a message's content, each once.
pub(super) fn note_media(content: &Value, out: &mut Vec<String>) {
    let Some(parts) = content.as_array() else { return };
    for part in parts {
        let kind = part["type"].as_str().unwrap_or_default();
        if !matches!(kind, "image_url" | "video_url" | "input_audio" | "audio_url" | "image" | "input_image")
        {
            continue;
        }
        let text = part.to_string();
        let hash = text.bytes().fold(0, |hash, byte| tokens::mix(hash ^ u64::from(byte)));
        out.push(format!("{hash:016x}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn nixl() -> Value {
        json!({"do_remote_prefill": true, "do_remote_decode": false, "remote_block_ids": [[1, 2]],
               "remote_engine_id": "e", "remote_request_id": "r", "remote_host": "10.0.0.2", "remote_port": 5600, "x": 9})
    }

    fn read(role: Option<Role>, params: &Value) -> Handoff {
        Handoff::read(role, &Members { kv_transfer_params: Some(params), ..Members::default() }).unwrap()
    }

    #[test]
    fn complete_parameters_are_fetched_by_a_decode_server_alone() {
        assert_eq!(read(Some(Role::Decode), &nixl()).fetch, Fetch::Now);
        assert_eq!(read(Some(Role::Both), &nixl()).fetch, Fetch::Now);
        assert_eq!(read(Some(Role::Prefill), &nixl()).fetch, Fetch::Nothing);
        assert_eq!(read(None, &nixl()).fetch, Fetch::Nothing);
        let needed = [
            "do_remote_prefill",
            "remote_block_ids",
            "remote_engine_id",
            "remote_request_id",
            "remote_host",
            "remote_port",
        ];
        for missing in needed {
            let mut params = nixl();
            params[missing] = Value::Null;
            assert_eq!(read(Some(Role::Decode), &params).fetch, Fetch::Nothing, "{missing}");
        }
        for odd in [json!(null), json!([]), json!("x"), json!(7), json!({"remote_block_ids": []})] {
            assert_eq!(read(Some(Role::Decode), &odd), Handoff::default(), "{odd}");
        }
    }

    #[test]
    fn a_prefill_server_offers_what_a_decode_server_fetches() {
        let asked = json!({"do_remote_decode": true, "do_remote_prefill": false, "remote_block_ids": null});
        let handoff = read(Some(Role::Prefill), &asked);
        let offered: Value = serde_json::from_str(&handoff.kv_params("sim-\"0", "::1", "id", 3, 40)).unwrap();
        assert_eq!(offered["remote_block_ids"], json!([[0, 1, 2]]));
        assert_eq!(offered["remote_engine_id"], "sim-\"0");
        assert_eq!(read(Some(Role::Decode), &offered).fetch, Fetch::Now);
        for role in [None, Some(Role::Decode), Some(Role::Encode)] {
            assert_eq!(read(role, &asked).kv_params("e", "h", "id", 3, 40), "null", "{role:?}");
        }
    }

    #[test]
    fn stages_that_run_at_once_wait_for_a_prefill_and_write_one_token() {
        let mooncake = json!({"do_remote_prefill": true, "transfer_id": "xfer-1", "remote_engine_id": "A"});
        assert_eq!(read(Some(Role::Decode), &mooncake).fetch, Fetch::WhenPrefilled);
        let tier =
            json!({"remote_prefiller": {"kv_request_id": "u", "remote_host": "h", "remote_port": 7777}});
        assert_eq!(read(Some(Role::Decode), &tier).fetch, Fetch::WhenPrefilled);
        assert!(read(Some(Role::Prefill), &json!({"remote_decoder": {"kv_request_id": "u"}})).only_prefills);
        let (room, host) = (json!(7), json!("10.0.0.2"));
        let rooms = |role, room: &Value| {
            let members =
                Members { bootstrap_room: Some(room), bootstrap_host: Some(&host), ..Members::default() };
            Handoff::read(role, &members)
        };
        assert_eq!(rooms(Some(Role::Decode), &room).unwrap().fetch, Fetch::WhenPrefilled);
        assert!(rooms(Some(Role::Prefill), &room).unwrap().only_prefills);
        assert_eq!(rooms(None, &room).unwrap(), Handoff::default());
        assert_eq!(rooms(Some(Role::Decode), &json!("7")).unwrap_err().status, 400);
        assert_eq!(rooms(Some(Role::Decode), &json!(null)).unwrap(), Handoff::default());
    }

    #[test]
    fn a_threshold_is_a_share() {
        let read = |given: Value| {
            Handoff::read(None, &Members { cache_hit_threshold: Some(&given), ..Members::default() })
                .map(|handoff| handoff.threshold)
        };
        assert_eq!(read(json!(0)).unwrap(), Some(0.0));
        assert_eq!(read(json!(0.8)).unwrap(), Some(0.8));
        assert_eq!(read(json!(null)).unwrap(), None);
        for wrong in [json!(-0.1), json!(1.5), json!("0.8"), json!([])] {
            assert_eq!(read(wrong).unwrap_err().status, 400);
        }
    }

    #[test]
    fn media_are_offered_once_each() {
        let mut handoff = Handoff::default();
        assert_eq!(handoff.ec_params("h"), None);
        let image = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
        note_media(&json!([image("u1"), {"type": "text", "text": "x"}, image("u2")]), &mut handoff.media);
        note_media(&json!("only text"), &mut handoff.media);
        assert_eq!(handoff.media.len(), 2);
        let offered: Value = serde_json::from_str(&handoff.ec_params("10.0.0.3").unwrap()).unwrap();
        assert_eq!(offered[&handoff.media[0]], json!({"peer_host": "10.0.0.3", "peer_port": 5601}));
    }
}
