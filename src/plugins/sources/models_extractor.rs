//! `models-data-extractor`: which models the servers say they have.
//!
//! The lists stand in `/debug/plugins/state`; no plugin goes by them. At most 256 models of a server are kept, and 100
//! shown.
//!
//! Use it to see which models the servers say they have. It costs reading a small JSON document.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;

use crate::datalayer::PageExtractor;
use crate::plugins::{PluginType, Roles, Stability};
use crate::pool::{Endpoint, Snapshot};

/// The row.
pub static TYPE: PluginType = PluginType::new(NAME, Stability::Beta, |cx| {
    cx.no_params();
    let lists = Arc::new(Lists::default());
    let shown = Arc::clone(&lists);
    let roles = Roles { page_extractor: Some(lists), ..Roles::default() };
    Ok(roles.state(move || shown.state()))
})
.about(
    "Keeps the lists of models that the servers give, and shows them in /debug/plugins/state.",
    "Use it to see which models the servers say they have; no plugin goes by it. It costs reading a small JSON \
     document of each server in each interval.",
);

const NAME: &str = "models-data-extractor";
/// Most models of one server that are kept.
const MAX_MODELS: usize = 256;
/// Longest name of a model, in bytes.
const MAX_NAME: usize = 256;
/// Most models that are shown.
const SHOWN: usize = 100;

#[derive(Deserialize)]
struct Page {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
}

/// Names of the models by incarnation of the endpoint.
#[derive(Debug, Default)]
struct Lists(Mutex<HashMap<u64, Vec<String>>>);

impl Lists {
    fn state(&self) -> serde_json::Value {
        let lists = self.0.lock();
        let mut models: BTreeMap<&str, u64> = BTreeMap::new();
        for id in lists.values().flatten() {
            *models.entry(id).or_default() += 1;
        }
        let shown: BTreeMap<&str, u64> = models.iter().take(SHOWN).map(|(id, count)| (*id, *count)).collect();
        json!({"endpoints": lists.len(), "models": models.len(), "endpointsByModel": shown})
    }
}

impl PageExtractor for Lists {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn reads(&self) -> &'static str {
        "models-data-source"
    }

    fn extract(&self, endpoint: &Endpoint, page: &[u8]) -> Result<(), String> {
        let page: Page = serde_json::from_slice(page).map_err(|error| error.to_string())?;
        let ids = page.data.into_iter().map(|model| model.id).filter(|id| id.len() <= MAX_NAME);
        self.0.lock().insert(endpoint.incarnation(), ids.take(MAX_MODELS).collect());
        Ok(())
    }

    fn retain(&self, snapshot: &Snapshot) {
        let known: HashSet<u64> = snapshot.endpoints().iter().map(|it| it.incarnation()).collect();
        self.0.lock().retain(|incarnation, _| known.contains(incarnation));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, pod};

    #[test]
    fn lists_are_kept_by_endpoint_and_bad_pages_change_nothing() {
        let mut fleet = Fleet::new([pod("a"), pod("b")]);
        let roles = fleet.build(&TYPE, None).unwrap().roles;
        let extractor = roles.page_extractor.as_ref().unwrap();
        let snapshot = fleet.snapshot();
        let endpoints = snapshot.endpoints();
        let long = "x".repeat(MAX_NAME + 1);
        let page = format!(r#"{{"object":"list","data":[{{"id":"m","parent":null}},{{"id":"{long}"}}]}}"#);
        assert_eq!(extractor.extract(&endpoints[0], page.as_bytes()), Ok(()));
        assert_eq!(extractor.extract(&endpoints[1], br#"{"data":[{"id":"m"},{"id":"n"}]}"#), Ok(()));
        for bad in ["", "[]", "{}", r#"{"data":[{}]}"#, r#"{"data":[{"id":1}]}"#] {
            assert!(extractor.extract(&endpoints[1], bad.as_bytes()).is_err(), "{bad}");
        }
        let state = || roles.state.as_ref().unwrap().read();
        assert_eq!(state(), json!({"endpoints": 2, "models": 2, "endpointsByModel": {"m": 2, "n": 1}}));
        extractor.retain(&Fleet::new([]).snapshot());
        assert_eq!(state()["endpoints"], 0);
    }
}
