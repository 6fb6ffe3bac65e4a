//! A fleet of endpoints with given figures, to try plugins on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use fastrand::Rng;
use serde_json::Value;
use smallvec::SmallVec;

use super::{
    BuildCx, BuildError, ColumnKey, Consumption, DeciderReference, FilterReference, PluginType, Roles,
};
use crate::metrics::Metrics;
use crate::pool::{
    AttributeKey, Endpoint, EndpointId, EndpointSpec, Lease, LoraReading, Pool, Reading, Snapshot,
};
use crate::prefix::PrefixMatch;
use crate::request::{Headers, Inference, MediaEstimate, MediaKind, Tokenized, TokenizedPrompt};
use crate::scheduling::{
    Call, Candidates, Column, Columns, DecidedCall, Decider, Decision, Finding, HeaderEdits, Mask,
    PluginState, Produced, ProfileResult, RequestView, Stages,
};

/// An endpoint `default/<name>` with what its last scrape said.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    spec: EndpointSpec,
    reading: Reading,
    in_flight: usize,
}

/// An endpoint at `10.0.0.<last letter>:8000` that was never scraped.
pub(crate) fn pod(name: &str) -> Pod {
    let last = name.bytes().last().unwrap_or_default();
    let address = SocketAddr::from(([10, 0, 0, last], 8000));
    Pod {
        spec: EndpointSpec::new(EndpointId::new("default", name), address),
        reading: Reading::default(),
        in_flight: 0,
    }
}

impl Pod {
    /// The same figures under another name and address.
    pub(crate) fn named(self, name: &str) -> Self {
        let Pod { reading, in_flight, .. } = self;
        Pod { reading, in_flight, ..pod(name) }
    }

    pub(crate) fn at(mut self, address: &str) -> Self {
        self.spec.address = address.parse().unwrap();
        self
    }

    pub(crate) fn waiting(mut self, waiting: u64) -> Self {
        self.reading.waiting = Some(waiting);
        self
    }

    pub(crate) fn running(mut self, running: u64) -> Self {
        self.reading.running = Some(running);
        self
    }

    pub(crate) fn kv(mut self, usage: f64) -> Self {
        self.reading.kv_usage = Some(usage);
        self
    }

    pub(crate) fn cache(mut self, block_size: u32, num_blocks: u32) -> Self {
        (self.reading.block_size, self.reading.num_blocks) = (Some(block_size), Some(num_blocks));
        self
    }

    pub(crate) fn lora(mut self, active: &[&str], waiting: &[&str], max_active: u64) -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        self.reading.lora = Some(LoraReading { active: names(active), waiting: names(waiting), max_active });
        self
    }

    pub(crate) fn attribute(mut self, attribute: &str, producer: &str, value: f64) -> Self {
        self.reading.attributes.push((AttributeKey::new(attribute, producer), value));
        self
    }

    pub(crate) fn label(mut self, key: &str, value: &str) -> Self {
        Arc::make_mut(&mut self.spec.labels).insert(key.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn in_flight(mut self, count: usize) -> Self {
        self.in_flight = count;
        self
    }
}

/// A request, as far as plugins look at it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) model: String,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    pub(crate) inference: Inference,
    pub(crate) tokens: Option<Tokenized>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) priority: i32,
}

/// A request for `model` without body or headers.
pub(crate) fn request(model: &str) -> Request {
    Request {
        model: model.to_owned(),
        headers: Headers::new(),
        body: Bytes::new(),
        inference: Inference::opaque(),
        tokens: None,
        findings: Vec::new(),
        priority: 0,
    }
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        self.headers.push(bytes(name), bytes(value));
        self
    }

    /// With a prompt of one string, which is the whole body.
    pub(crate) fn prompt(mut self, text: &str) -> Self {
        let string = crate::request::JsonStr { start: 0, end: text.len() as u32, escaped: false };
        self.body = Bytes::copy_from_slice(text.as_bytes());
        self.inference.prompt.pieces = SmallVec::from_iter([crate::request::Piece::Text(string)]);
        self
    }

    pub(crate) fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// With these exact tokens of its one prompt.
    pub(crate) fn tokens(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        let prompt = TokenizedPrompt { ids: ids.into_iter().collect(), media: Vec::new() };
        self.tokens = Some(Tokenized { prompts: vec![prompt] });
        self
    }

    /// With an image, video or sound of this URL behind the prompt so far.
    pub(crate) fn media(mut self, kind: MediaKind, url: &str) -> Self {
        let start = self.body.len() as u32;
        self.body = [&self.body[..], url.as_bytes()].concat().into();
        let end = self.body.len() as u32;
        let string = crate::request::JsonStr { start, end, escaped: false };
        self.inference.prompt.pieces.push(crate::request::Piece::Media(kind, string));
        self
    }

    pub(crate) fn view(&self) -> RequestView<'_> {
        RequestView {
            id: "request",
            target_model: &self.model,
            headers: &self.headers,
            body: &self.body,
            inference: &self.inference,
            tokens: self.tokens.as_ref(),
            findings: &self.findings,
            media: &MediaEstimate::DEFAULT,
            priority: self.priority,
            fairness_id: "default",
        }
    }
}

/// A decider with one answer.
struct Answer(bool);

impl Decider for Answer {
    fn decide(&self, _call: &Call<'_>, _target: Option<&Arc<Endpoint>>) -> bool {
        self.0
    }
}

/// The result of a build.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) roles: Roles,
    pub(crate) warnings: Vec<String>,
    pub(crate) consumed: Vec<Consumption>,
    pub(crate) attributes_read: Vec<AttributeKey>,
    pub(crate) filters: Vec<FilterReference>,
    pub(crate) deciders: Vec<DeciderReference>,
}

/// A pool, and the columns of the plugins built for it.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) pool: Pool,
    pub(crate) now: Instant,
    keys: Vec<ColumnKey>,
    metrics: Arc<Metrics>,
    /// Requests in flight, for as long as the fleet lives.
    _leases: Vec<Lease>,
}

impl Fleet {
    pub(crate) fn new(pods: impl IntoIterator<Item = Pod>) -> Self {
        let now = Instant::now();
        let pool = Pool::new("default", "pool", now);
        let pods: Vec<Pod> = pods.into_iter().collect();
        pool.replace_endpoints(pods.iter().map(|pod| pod.spec.clone()).collect());
        let mut leases = Vec::new();
        let snapshot = pool.snapshot();
        for (pod, endpoint) in pods.into_iter().zip(snapshot.endpoints()) {
            endpoint.load().record(pod.reading, 0, now);
            leases.extend((0..pod.in_flight).map(|_| Lease::take(endpoint, 1)));
        }
        Self { pool, now, keys: Vec::new(), metrics: Arc::new(Metrics::new()), _leases: leases }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.pool.snapshot()
    }

    #[expect(clippy::needless_pass_by_value, reason = "so that cases can be written with json!()")]
    pub(crate) fn build(&mut self, plugin: &PluginType, params: Option<Value>) -> Result<Built, BuildError> {
        let mut cx = BuildCx::new(plugin.name, params.as_ref(), &self.metrics, &mut self.keys, 7);
        let roles = (plugin.build)(&mut cx)?;
        let BuildCx { consumed, deciders, warnings, attributes_read, filters, .. } = cx;
        Ok(Built { roles, warnings, consumed, attributes_read, filters, deciders })
    }

    /// The column that `producer` writes for cells of `T`, if any plugin built so far knows it.
    pub(crate) fn column<T: 'static>(&self, producer: &str) -> Column<T> {
        let data = std::any::TypeId::of::<T>();
        let index = self.keys.iter().position(|key| key.data == data && key.producer == producer).unwrap();
        Column::new(index as u16)
    }

    /// Columns in which the endpoints match as many blocks of `total` blocks of 64 tokens as given.
    pub(crate) fn matches(&self, matched: &[u32], total: u32) -> Columns {
        let cells = matched
            .iter()
            .map(|&matched| PrefixMatch { matched, total, block_size: 64, cached: matched })
            .collect();
        let mut columns = Columns::new();
        columns.insert(Produced::new(self.column("approx-prefix-cache-producer"), cells));
        columns
    }

    /// The same, cut to the endpoints there are; nothing if no plugin built so far reads them.
    pub(crate) fn known_matches(&self, matched: &[u32], total: u32) -> Columns {
        let producer = "approx-prefix-cache-producer";
        let data = std::any::TypeId::of::<PrefixMatch>();
        let known = self.keys.iter().any(|key| key.data == data && key.producer == producer);
        let count = self.snapshot().len().min(matched.len());
        if known { self.matches(&matched[..count], total) } else { Columns::new() }
    }

    /// Runs `look` on a call with all endpoints.
    pub(crate) fn call<R>(
        &self,
        request: &Request,
        columns: &Columns,
        look: impl FnOnce(&Call<'_>) -> R,
    ) -> R {
        let candidates = Candidates::all(self.snapshot());
        let slots: Vec<u32> = (0..candidates.len() as u32).collect();
        look(&Call::new(request.view(), self.now, &candidates, &slots, columns))
    }

    /// Scores of a scorer.
    pub(crate) fn scores(&self, roles: &Roles, request: &Request, columns: &Columns) -> Vec<f64> {
        let scorer = roles.scorer.as_ref().unwrap();
        self.call(request, columns, |call| {
            let mut scores = vec![0.0; call.len()];
            scorer.score(call, &mut scores);
            scores
        })
    }

    /// Names of the endpoints that a filter keeps.
    pub(crate) fn kept(&self, roles: &Roles, request: &Request) -> Vec<String> {
        let filter = roles.filter.as_ref().unwrap();
        self.call(request, &Columns::new(), |call| {
            let mut keep = Mask::full(call.len());
            filter.narrow(call, &mut keep);
            let kept = call.endpoints().enumerate().filter(|(position, _)| keep.contains(*position));
            kept.map(|(_, endpoint)| endpoint.id().name().to_owned()).collect()
        })
    }

    /// The page of metrics that the plugins write to.
    pub(crate) fn page(&self) -> String {
        self.metrics.encode(crate::metrics::Format::Text)
    }

    /// The answer of a decider.
    pub(crate) fn decides(
        &self,
        roles: &Roles,
        request: &Request,
        columns: &Columns,
        target: Option<&Arc<Endpoint>>,
    ) -> bool {
        let decider = roles.decider.as_ref().unwrap();
        self.call(request, columns, |call| decider.decide(call, target))
    }

    /// Names of the plugins whose decisions this plugin asks for, each of which says `answer`.
    pub(crate) fn answer_deciders(built: &Built, answer: impl Fn(&str) -> bool) -> Vec<String> {
        let asked = built.deciders.iter();
        asked
            .map(|wanted| {
                wanted.slot.fill(Arc::new(Answer(answer(&wanted.name))));
                wanted.name.clone()
            })
            .collect()
    }

    /// Header changes that the pre-request hook of `roles` asks for.
    pub(crate) fn edits(
        &self,
        roles: &Roles,
        request: &Request,
        decision: &Decision,
        profiles: &[Arc<str>],
    ) -> HeaderEdits {
        self.edits_with(roles, request, &Columns::new(), decision, profiles)
    }

    /// The same with these columns.
    pub(crate) fn edits_with(
        &self,
        roles: &Roles,
        request: &Request,
        columns: &Columns,
        decision: &Decision,
        profiles: &[Arc<str>],
    ) -> HeaderEdits {
        let mut edits = HeaderEdits::default();
        self.call(request, columns, |call| {
            let decided = DecidedCall { call: *call, decision, profiles };
            roles.pre_request.as_ref().unwrap().before_forward(&decided, &mut edits).unwrap();
        });
        edits
    }

    /// Positions that a picker picks.
    pub(crate) fn picked(&self, roles: &Roles, totals: &[f64], rng: &mut Rng) -> Vec<u32> {
        let picker = roles.picker.as_ref().unwrap();
        self.call(&request("m"), &Columns::new(), |call| {
            let mut picked = SmallVec::new();
            picker.pick(call, totals, rng, &mut picked);
            picked.to_vec()
        })
    }

    /// Columns that a producer produces.
    pub(crate) fn produce(&self, roles: &Roles, request: &Request) -> Columns {
        let producer = roles.producer.as_ref().unwrap();
        let mut columns = Columns::new();
        for produced in self.call(request, &Columns::new(), |call| producer.produce(call)).unwrap() {
            columns.insert(produced);
        }
        columns
    }

    /// A decision in which each profile chose the endpoint at the given place out of those listed, or did not run. The
    /// first one is primary.
    pub(crate) fn decision(&self, chosen: &[Option<usize>], scored: &[u32]) -> Decision {
        let snapshot = self.snapshot();
        let profiles = chosen
            .iter()
            .map(|place| {
                place.map(|place| ProfileResult {
                    targets: SmallVec::from_iter([Arc::clone(&snapshot.endpoints()[place])]),
                    scored: scored.iter().map(|&slot| (slot, 0.0)).collect(),
                })
            })
            .collect();
        let stage = |index: usize| (index < chosen.len()).then_some(index);
        let stages = Stages { prefill: stage(1), encode: stage(2) };
        Decision { profiles, primary: 0, stages, proxy_port: None }
    }

    /// Runs the pre-request hook for profiles named `default` and `prefill`, which chose the endpoints at these places
    /// out of all.
    pub(crate) fn forward(
        &self,
        roles: &Roles,
        request: &Request,
        columns: &Columns,
        chosen: &[Option<usize>],
    ) {
        let everyone: Vec<u32> = (0..self.snapshot().len() as u32).collect();
        self.forward_out_of(roles, request, columns, chosen, &everyone);
    }

    /// The same, with only the endpoints at `scored` having survived the filters.
    pub(crate) fn forward_out_of(
        &self,
        roles: &Roles,
        request: &Request,
        columns: &Columns,
        chosen: &[Option<usize>],
        scored: &[u32],
    ) {
        assert!(self.forwarded(roles, request, columns, chosen, scored).is_none());
    }

    /// The same; what the hook keeps.
    pub(crate) fn forwarded(
        &self,
        roles: &Roles,
        request: &Request,
        columns: &Columns,
        chosen: &[Option<usize>],
        scored: &[u32],
    ) -> PluginState {
        let decision = self.decision(chosen, scored);
        let profiles = ["default".into(), "prefill".into(), "encode".into()];
        self.call(request, columns, |call| {
            let decided =
                DecidedCall { call: *call, decision: &decision, profiles: &profiles[..chosen.len()] };
            let mut headers = HeaderEdits::default();
            let state = roles.pre_request.as_ref().unwrap().before_forward(&decided, &mut headers);
            state.unwrap_or_else(|_| panic!("the hook refused the request"))
        })
    }
}
