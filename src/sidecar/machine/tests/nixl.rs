//! What connectors of NIXL hand over, and the settings of a test.

use serde_json::{Value, json};

use super::support::{Got, Made, Played, Reply, ask, ok, play, shared};
use crate::sidecar::api::Api;
use crate::sidecar::connector::Connector;
use crate::sidecar::machine::{Leg, Rewrite};
use crate::sidecar::settings::Settings;

pub(super) const P: &str = "10.0.0.2:8000";
pub(super) const KV: &str = r#"{"do_remote_prefill":true,"do_remote_decode":false,"remote_engine_id":"e","remote_block_ids":[[1,2]],"remote_request_id":"r","remote_host":"10.0.0.2","remote_port":5600,"x":9}"#;

pub(super) fn nx() -> Value {
    json!({"do_remote_decode":true,"do_remote_prefill":false,"remote_engine_id":null,"remote_block_ids":null,"remote_host":null,"remote_port":null})
}

pub(super) fn kv() -> Value {
    serde_json::from_str(KV).unwrap()
}

pub(super) fn settings(connector: Connector) -> Settings {
    Settings { connector, ..Settings::default() }
}

/// The answer of a prefill server of NIXL, and of a decode server.
pub(super) fn nixl(made: &Made) -> Reply {
    match made.leg {
        Leg::Prefill => ok(&format!(r#"{{"kv_transfer_params":{KV}}}"#)),
        _ => ok("{}"),
    }
}

pub(super) fn nixl_v2(api: Api, body: &str) -> Played {
    play(&shared(settings(Connector::NixlV2)), ask(api, body, &[P]), nixl)
}

pub(super) fn decoded(rewrite: Rewrite) -> Got {
    Got::Relayed(Leg::Decode, rewrite)
}
