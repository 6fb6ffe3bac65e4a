//! The pool and the figures of its endpoints, as a capture records them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capture::lines::{EndpointLine, LoadLine, PoolLine};
use crate::pool::{AttributeKey, EndpointId, EndpointSpec, LoadState, LoraReading, Snapshot};
use crate::scheduling::Candidates;

/// The pool at one time of the capture.
#[derive(Debug)]
pub(super) struct Scene {
    epoch: Instant,
    pool: Arc<Snapshot>,
}

impl Scene {
    /// Makes a scene without endpoints. `epoch` is the time at which the clock of the capture is 0.
    pub(super) fn new(epoch: Instant) -> Self {
        Self { epoch, pool: Arc::default() }
    }

    /// Converts `nanos` of the capture's clock to a time.
    pub(super) fn at(&self, nanos: u64) -> Instant {
        self.epoch.checked_add(Duration::from_nanos(nanos)).unwrap_or(self.epoch)
    }

    /// The list of endpoints.
    pub(super) fn pool(&self) -> &Arc<Snapshot> {
        &self.pool
    }

    /// The name of the endpoint at this place.
    pub(super) fn name(&self, place: u32) -> String {
        let endpoint = self.pool.endpoints().get(place as usize);
        endpoint.map_or_else(|| format!("#{place}"), |endpoint| endpoint.id().to_string())
    }

    /// Sets the list of endpoints. Returns true if the list changed.
    pub(super) fn becomes(&mut self, line: &PoolLine) -> Result<bool, String> {
        if self.pool.version() == line.version && self.pool.len() == line.endpoints.len() {
            return Ok(false);
        }
        let endpoints = line.endpoints.iter().map(spec).collect::<Result<Vec<_>, _>>()?;
        self.pool = Arc::new(Snapshot::of(line.version, endpoints, self.epoch));
        Ok(true)
    }

    /// Sets the figures of endpoints.
    pub(super) fn figures(&self, lines: &[LoadLine]) {
        for line in lines {
            if let Some(endpoint) = self.pool.endpoints().get(line.endpoint as usize) {
                endpoint.load().set_state(&state(line));
            }
        }
    }

    /// The endpoints at these places; all endpoints if `places` is `None`.
    pub(super) fn candidates(&self, places: Option<&Vec<u32>>) -> Candidates {
        Candidates::at_places(Arc::clone(&self.pool), places.cloned())
    }
}

fn spec(line: &EndpointLine) -> Result<(EndpointSpec, u64), String> {
    let address = |text: &String| text.parse().map_err(|_| format!("address {text:?}: expected ip:port"));
    let node = |text: &String| text.parse().map_err(|_| format!("node {text:?}: expected an IP address"));
    let mut spec = EndpointSpec::new(EndpointId::new(&line.namespace, &line.name), address(&line.address)?);
    spec.pod = line.pod.as_str().into();
    spec.node_address = line.node.as_ref().map(node).transpose()?;
    spec.labels = Arc::new(line.labels.clone());
    spec.rank = line.rank;
    Ok((spec, line.incarnation))
}

fn state(line: &LoadLine) -> LoadState {
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    let lora = line.lora.as_ref().map(|lora| LoraReading {
        active: set(&lora.active),
        waiting: set(&lora.waiting),
        max_active: lora.max_active,
    });
    LoadState {
        in_flight: line.in_flight,
        in_flight_tokens: line.in_flight_tokens,
        dispatched: line.dispatched,
        waiting: line.waiting,
        running: line.running,
        kv_usage: line.kv_usage.0,
        block_size: line.block_size,
        num_blocks: line.num_blocks,
        read: line.read_ns.map(Duration::from_nanos),
        figures_read: line.figures_read_ns.map(|read| read.map(Duration::from_nanos)),
        dispatched_at_reading: line.dispatched_at_reading,
        in_flight_at_reading: line.in_flight_at_reading,
        prompts_at_reading: line.prompts_at_reading,
        tokens_elsewhere: line.tokens_elsewhere,
        tokens_since_reading: line.tokens_since_reading,
        unanswered: line.unanswered,
        lora: Arc::new(lora.unwrap_or_default()),
        attributes: line
            .attributes
            .iter()
            .map(|it| (AttributeKey::new(&it.attribute, &it.producer), it.value.0))
            .collect(),
    }
}
