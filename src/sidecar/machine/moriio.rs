//! MoRI-IO's write mode: the prefill call says where the decode server is, and the prefill server writes the cache
//! there.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::request::{Machine, rank_header};
use super::types::LegRequest;
use crate::request::{Edits, JsonObject, json_string};
use crate::sidecar::bodies::Pieces;
use crate::sidecar::rank::rank_of;
use crate::sidecar::target::Target;

/// The members of a prefill server's transfer parameters that are read or filled in.
const PARAMETERS: &[&str] = &[
    "remote_dp_rank",
    "remote_dp_rank_override",
    "transfer_id",
    "remote_notify_port",
    "remote_handshake_port",
    "remote_dp_size",
    "remote_hosts",
    "remote_dp_size_local",
];

impl Machine {
    /// Chooses the id of the transfer and its rank, which are the same in all calls.
    fn meet(&mut self) {
        let id = self.ids.uuid();
        self.transfer.rank = rank_of(&id, self.settings().moriio.dp_size);
        self.transfer.id = format!("tx{id}");
    }

    /// The header that names the rank in the prefill call, if there are several ranks.
    pub(super) fn moriio_rank(&mut self) -> Option<(HeaderName, HeaderValue)> {
        if self.settings().moriio.dp_size < 2 {
            return None;
        }
        if self.transfer.id.is_empty() {
            self.meet();
        }
        Some(rank_header(self.transfer.rank))
    }

    /// The transfer parameters of the prefill call, which say where the decode server is.
    fn announcement(&self) -> Value {
        let moriio = &self.settings().moriio;
        let (handshake, notify) = moriio.decode_ports;
        let mut parameters = json!({
            "do_remote_decode": true,
            "do_remote_prefill": false,
            "remote_engine_id": null,
            "remote_block_ids": null,
            "remote_host": moriio.local_ip,
            "remote_port": null,
            "remote_notify_port": notify,
            "remote_handshake_port": handshake,
            "remote_dp_rank": self.transfer.rank,
            "remote_dp_rank_override": true,
            "transfer_id": self.transfer.id,
            "tp_size": moriio.tp_size,
            "remote_dp_size": moriio.dp_size,
        });
        if let Some(object) = parameters.as_object_mut() {
            hosts(object, &moriio.decode_hosts, moriio.dp_size_local);
        }
        parameters
    }

    /// The body of the prefill call of the write mode that asks one server after the other.
    pub(super) fn write_mode_body(&mut self) -> Pieces {
        self.meet();
        self.body().write_mode_prefill(&self.announcement())
    }

    /// The transfer parameters of the decode call. In write mode they are those of the prefill server's answer with the
    /// missing members filled in. Otherwise they are those of the answer, byte for byte.
    pub(super) fn write_mode_answer(&mut self, answered: Bytes) -> Bytes {
        let moriio = self.settings().moriio.clone();
        if !moriio.write_mode {
            return answered;
        }
        let Ok(object) = JsonObject::read(answered.clone(), PARAMETERS) else { return answered };
        let rank = object.count("remote_dp_rank").filter(|rank| *rank < u64::from(moriio.dp_size));
        if let Some(rank) = rank {
            self.transfer.rank = rank as u32;
        }
        let (handshake, notify) = moriio.prefill_ports;
        let mut edits = Edits::new();
        edits.set("remote_dp_rank", self.transfer.rank.to_string()).set("remote_dp_rank_override", "true");
        let mut fill = |name: &'static str, value: Bytes| {
            if !object.has(name) {
                edits.set(name, value);
            }
        };
        fill("transfer_id", json_string(&self.transfer.id));
        fill("remote_notify_port", notify.to_string().into());
        fill("remote_handshake_port", handshake.to_string().into());
        fill("remote_dp_size", moriio.dp_size.to_string().into());
        if !moriio.remote_hosts.is_empty() {
            fill("remote_hosts", json!(moriio.remote_hosts).to_string().into());
        }
        if moriio.dp_size_local > 0 {
            fill("remote_dp_size_local", moriio.dp_size_local.to_string().into());
        }
        self.transfer.decides = true;
        object.edited(&edits).concat().into()
    }

    /// The prefill and the decode call of the write mode that asks both servers at the same time.
    pub(super) fn parallel_write(&mut self, target: &Target) -> (LegRequest, LegRequest) {
        self.meet();
        let moriio = &self.settings().moriio;
        let (handshake, notify) = moriio.prefill_ports;
        let mut parameters = json!({
            "do_remote_prefill": true,
            "do_remote_decode": false,
            "remote_engine_id": format!("{}:{handshake}", target.url_host()),
            "remote_block_ids": [],
            "remote_host": target.host(),
            "remote_port": handshake,
            "remote_notify_port": notify,
            "remote_handshake_port": handshake,
            "remote_dp_rank": self.transfer.rank,
            "remote_dp_rank_override": true,
            "transfer_id": self.transfer.id,
            "tp_size": moriio.tp_size,
            "remote_dp_size": moriio.dp_size,
        });
        if let Some(object) = parameters.as_object_mut() {
            hosts(object, &moriio.remote_hosts, moriio.dp_size_local);
        }
        let prefill = self.body().write_mode_prefill(&self.announcement());
        let decode = self.body().with_parameters(parameters.to_string().into());
        let (mut prefill, mut decode) = (self.to_prefill(target, prefill), self.to_engine(decode));
        if self.settings().moriio.dp_size > 1 {
            prefill.headers.push(rank_header(self.transfer.rank));
            decode.headers.push(rank_header(self.transfer.rank));
        }
        (prefill, decode)
    }
}

fn hosts(parameters: &mut Map<String, Value>, hosts: &[String], local: u32) {
    if !hosts.is_empty() {
        parameters.insert("remote_hosts".to_owned(), json!(hosts));
    }
    if local > 0 {
        parameters.insert("remote_dp_size_local".to_owned(), json!(local));
    }
}
