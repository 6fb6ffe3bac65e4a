//! `prefix-home-scorer`: gives each prefix a home that all replicas agree on, and a hot one several.
//!
//! The prefix of a request is the first `prefixTokens` tokens of its prompt, with the model. The endpoints that are not
//! overloaded are ranked by the hash of the prefix and their name (rendezvous hashing: Thaler and Ravishankar, 1998).
//! An endpoint is overloaded if its waiting and running requests exceed `loadFactor · (R + 1) / n`, where `R` are those
//! of all `n` endpoints in the running (consistent hashing with bounded loads: Mirrokni, Thorup and Zadimoghaddam,
//! 2018); if all are, all are ranked. With the share `s` of the prefix in the prompt tokens of the last minutes, the
//! first `⌈s · n⌉` endpoints in the ranking are its homes, at least one: a prefix that is more than a server's share of
//! the load gets another home. Homes score 1, others 0.
//!
//! For it: replicas that share nothing send a cold prefix to one place, a restart of the picker forgets nothing, and a
//! server that comes or goes moves its own share of the prefixes alone. Against it: it does not know what the caches
//! hold, and prompts that differ within `prefixTokens` share no home. Give it a small weight beside a scorer that knows
//! the caches: it then decides where a cold prefix goes. Cost: a hash of the beginning of the prompt, and three passes
//! over the candidates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use xxhash_rust::xxh64::xxh64;

use crate::clock;
use crate::plugins::prompt_size::prompt_size;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::prefix::{BlockShape, block_hashes};
use crate::scheduling::{
    Call, Category, DecidedCall, HeaderEdits, PluginState, PreRequest, PreRequestError, RequestView, Scorer,
};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("prefix-home-scorer", Stability::Alpha, build).about(
    "Gives each prefix a home that all replicas agree on, and a hot prefix several.",
    "Use it with a small weight beside a scorer that knows the caches, where several replicas share no index. It \
         costs a hash of the beginning of the prompt and three passes over the candidates.",
);

/// Most prefixes whose shares are known. The rest are cold.
const MOST: usize = 1024;
/// Largest factor by which counts grow before they are scaled down.
const LARGEST: f64 = 1e12;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Tokens of the prompt that make its prefix, 1 to 1048576.
    prefix_tokens: u32,
    /// Load of an endpoint, as a multiple of the mean, from which a prefix goes on to the next one; above 1.
    load_factor: f64,
    /// Seconds in which what was sent counts for half in the shares of prefixes; above 0.
    half_life_seconds: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { prefix_tokens: 512, load_factor: 1.25, half_life_seconds: 60.0 }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { prefix_tokens, load_factor, half_life_seconds } = cx.params()?;
    if !(1..=1 << 20).contains(&prefix_tokens) {
        let message = format!("is {prefix_tokens}, expected a number from 1 to 1048576");
        return Err(BuildError::at("prefixTokens", message));
    }
    if !load_factor.is_finite() || load_factor <= 1.0 {
        return Err(BuildError::at("loadFactor", format!("is {load_factor}, expected a number above 1")));
    }
    if !half_life_seconds.is_finite() || half_life_seconds <= 0.0 {
        let message = format!("is {half_life_seconds}, expected a number above 0");
        return Err(BuildError::at("halfLifeSeconds", message));
    }
    let plugin = Arc::new(PrefixHome {
        shape: BlockShape { block_size: prefix_tokens, max_blocks: 1 },
        load_factor,
        heat: Mutex::new(Heat::new(Duration::try_from_secs_f64(half_life_seconds).unwrap_or(Duration::MAX))),
    });
    Ok(Roles::default().scorer(Arc::clone(&plugin) as _).pre_request(plugin))
}

#[derive(Debug)]
struct PrefixHome {
    shape: BlockShape,
    load_factor: f64,
    heat: Mutex<Heat>,
}

/// Tokens that were sent by prefix. Later ones weigh more, which is the same as that earlier ones fade.
#[derive(Debug)]
struct Heat {
    half_life: f64,
    /// Time at which a token weighs 1.
    unit: Option<Instant>,
    tokens: HashMap<u64, f64>,
    all: f64,
}

impl Heat {
    fn new(half_life: Duration) -> Self {
        Self { half_life: half_life.as_secs_f64(), unit: None, tokens: HashMap::new(), all: 0.0 }
    }

    fn add(&mut self, prefix: u64, tokens: f64, now: Instant) {
        let unit = *self.unit.get_or_insert(now);
        let weight = (now.saturating_duration_since(unit).as_secs_f64() / self.half_life).exp2();
        if weight > LARGEST {
            let scale = 1.0 / weight;
            self.tokens.values_mut().for_each(|tokens| *tokens *= scale);
            self.all *= scale;
            self.unit = Some(now);
            return self.add(prefix, tokens, now);
        }
        self.all += weight * tokens;
        *self.tokens.entry(prefix).or_default() += weight * tokens;
        if self.tokens.len() > 2 * MOST {
            let mut sorted: Vec<f64> = self.tokens.values().copied().collect();
            let (_, least, _) = sorted.select_nth_unstable_by(MOST, f64::total_cmp);
            let least = *least;
            self.tokens.retain(|_, tokens| *tokens > least);
        }
    }

    /// Share of a prefix, 0..=1.
    fn share(&self, prefix: u64) -> f64 {
        let tokens = self.tokens.get(&prefix).copied().unwrap_or_default();
        if self.all > 0.0 { tokens / self.all } else { 0.0 }
    }
}

impl PrefixHome {
    /// Hash of the prefix; `None` without a prompt.
    fn prefix(&self, request: &RequestView<'_>) -> Option<u64> {
        let model = request.target_model;
        let blocks = block_hashes(model, request.inference, request.body, request.media_rules(), self.shape);
        blocks.hashes().first().copied()
    }

    /// Places in the ranking order, of endpoints that are not overloaded.
    fn ranked(&self, call: &Call<'_>, prefix: u64) -> Vec<(u64, usize)> {
        let loads: Vec<u64> = call.endpoints().map(|endpoint| endpoint.load().outstanding()).collect();
        let all: u64 = loads.iter().fold(0, |sum, load| sum.saturating_add(*load));
        let limit = self.load_factor * (all as f64 + 1.0) / loads.len().max(1) as f64;
        let limit = limit.max(loads.iter().min().copied().unwrap_or_default() as f64).ceil();
        let mut ranked: Vec<(u64, usize)> = call
            .endpoints()
            .enumerate()
            .filter(|(place, _)| loads.get(*place).is_none_or(|load| *load as f64 <= limit))
            .map(|(place, endpoint)| (xxh64(endpoint.id().name().as_bytes(), prefix), place))
            .collect();
        ranked.sort_unstable_by(|one, other| other.cmp(one));
        ranked
    }
}

impl Scorer for PrefixHome {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let Some(prefix) = self.prefix(&call.request) else { return out.fill(1.0) };
        let share = self.heat.lock().share(prefix);
        let homes = ((share * call.len() as f64).ceil() as usize).max(1);
        out.fill(0.0);
        for (_, place) in self.ranked(call, prefix).into_iter().take(homes) {
            if let Some(score) = out.get_mut(place) {
                *score = 1.0;
            }
        }
    }
}

impl PreRequest for PrefixHome {
    fn before_forward(
        &self,
        decided: &DecidedCall<'_>,
        _headers: &mut HeaderEdits,
    ) -> Result<PluginState, PreRequestError> {
        if let Some(prefix) = self.prefix(&decided.call.request) {
            let tokens = prompt_size(&decided.call.request) as f64;
            self.heat.lock().add(prefix, tokens, clock::now());
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::pool::Lease;
    use crate::scheduling::Columns;

    const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

    fn homes(fleet: &Fleet, roles: &Roles, text: &str) -> BTreeSet<String> {
        let scores = fleet.scores(roles, &request("m").prompt(text), &Columns::new());
        let snapshot = fleet.snapshot();
        let homes = snapshot.endpoints().iter().zip(scores).filter(|(_, score)| *score > 0.5);
        homes.map(|(endpoint, _)| endpoint.id().name().to_owned()).collect()
    }

    #[test]
    fn all_replicas_send_a_prefix_to_one_home_and_a_server_that_goes_moves_its_own_prefixes_alone() {
        let mut fleet = Fleet::new(NAMES.map(pod));
        let mut replica = Fleet::new(NAMES.map(pod));
        let mut smaller = Fleet::new(NAMES[..7].iter().copied().map(pod));
        let build = |fleet: &mut Fleet| fleet.build(&TYPE, None).unwrap().roles;
        let (one, two, three) = (build(&mut fleet), build(&mut replica), build(&mut smaller));
        let mut used = BTreeSet::new();
        for number in 0..64 {
            let text = format!("you are assistant {number}. ").repeat(100);
            let home = homes(&fleet, &one, &text);
            assert_eq!(home.len(), 1);
            assert_eq!(home, homes(&replica, &two, &(text.clone() + "another question")));
            if !home.contains("h") {
                assert_eq!(home, homes(&smaller, &three, &text));
            }
            used.extend(home);
        }
        assert_eq!(used.len(), NAMES.len(), "prefixes spread over all");
    }

    #[test]
    fn an_overloaded_home_passes_its_prefixes_on() {
        let mut fleet = Fleet::new(NAMES.map(pod));
        let roles = fleet.build(&TYPE, None).unwrap().roles;
        let text = "you are an assistant. ".repeat(100);
        let home = homes(&fleet, &roles, &text);
        let snapshot = fleet.snapshot();
        let endpoint = snapshot.endpoints().iter().find(|it| home.contains(it.id().name())).unwrap();
        let leases: Vec<Lease> = (0..3).map(|_| Lease::take(endpoint, 1)).collect();
        assert!(homes(&fleet, &roles, &text).is_disjoint(&home));
        drop(leases);
        assert_eq!(homes(&fleet, &roles, &text), home);
    }

    #[test]
    fn a_prefix_that_is_more_than_a_servers_share_gets_more_homes_and_loses_them_when_it_cools() {
        let mut fleet = Fleet::new(NAMES.map(pod));
        let roles = fleet.build(&TYPE, Some(json!({"halfLifeSeconds": 10}))).unwrap().roles;
        let hot = "you are a popular assistant. ".repeat(100);
        let send = |fleet: &Fleet, text: &str| {
            let _still = clock::stand_still(fleet.now);
            fleet.forward(&roles, &request("m").prompt(text), &Columns::new(), &[Some(0)]);
        };
        for number in 0..50 {
            send(&fleet, &hot);
            send(&fleet, &format!("you are assistant {number}. ").repeat(120));
        }
        let found = homes(&fleet, &roles, &hot).len();
        assert!((4..=5).contains(&found), "{found} homes for about half of the load");
        assert_eq!(homes(&fleet, &roles, &"you are assistant 7. ".repeat(120)).len(), 1);
        fleet.now += Duration::from_mins(2);
        for number in 0..50 {
            send(&fleet, &format!("you are clerk {number}. ").repeat(120));
        }
        assert_eq!(homes(&fleet, &roles, &hot).len(), 1);
        fleet.now += Duration::from_hours(2);
        send(&fleet, &hot);
        assert_eq!(homes(&fleet, &roles, &hot).len(), NAMES.len(), "old counts fade without an overflow");
    }

    #[test]
    fn the_memory_of_prefixes_is_bounded() {
        let mut heat = Heat::new(Duration::from_mins(1));
        let now = Instant::now();
        (0..100_000_u64).for_each(|prefix| heat.add(prefix, 1.0 + (prefix % 7) as f64, now));
        assert!(heat.tokens.len() <= 2 * MOST + 1, "{}", heat.tokens.len());
    }

    #[test]
    fn senseless_parameters_are_refused_by_name() {
        let mut fleet = Fleet::new([]);
        for (name, value) in [("prefixTokens", 0), ("loadFactor", 1), ("halfLifeSeconds", 0)] {
            let error = fleet.build(&TYPE, Some(json!({name: value}))).err();
            assert_eq!(error.map(|error| error.path), Some(name.to_owned()));
        }
    }
}
