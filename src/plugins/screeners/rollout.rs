//! `disaggregatedset-rollout-screener` (alpha): keeps a request to one revision while a set of stages rolls out.
//!
//! Of the pool's endpoints within `scope`, each revision that has a pod in every required role takes part in a draw. Its
//! weight is the number of its pods (`sum`), or of its pods in the role that has most pods over all revisions
//! (`max-role`). The request goes to endpoints of the drawn revision. A request with a header of mode `strict` is not
//! drawn for: it goes to endpoints whose label has the header's value. A header of mode `prefer` narrows to such
//! endpoints if there are any. If nobody is left, the request is refused with 503. Responses tell the chosen endpoint's
//! labels in the same headers, so that a client can stay with a revision.
//!
//! Use it where prefill and decode servers of different revisions do not understand each other. It costs a comparison of
//! labels for each endpoint, and a count of pods when the pool changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use fastrand::Rng;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::document::LabelQuery;
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::pool::Snapshot;
use crate::scheduling::{Call, HeaderEdits, Mask, PluginState, ResponseCall, ResponseHeaderHook, Screener};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("disaggregatedset-rollout-screener", Stability::Alpha, build)
    .about(
        "Keeps a request to one revision while a DisaggregatedSet rolls out.",
        "Use it where prefill and decode servers of different revisions do not understand each other. It \
         costs a comparison of labels for each endpoint.",
    )
    .with_example(
        "scope: {labelSelector: disaggregatedset.x-k8s.io/name=my-set}\nrevisionGating: {mode: sum}",
    );

const REVISION: &str = "disaggregatedset.x-k8s.io/revision";
const ROLE: &str = "disaggregatedset.x-k8s.io/role";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Whose pods count; required.
    scope: Scope,
    /// Headers that name the value of a label.
    header_selectors: Vec<Selector>,
    /// How a revision is drawn; required.
    revision_gating: Option<Gating>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Scope {
    /// Namespace of the pods, a former parameter; empty for any.
    namespace: String,
    /// Selector of the pods, such as `disaggregatedset.x-k8s.io/name=my-set`; required.
    label_selector: String,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Selector {
    /// Name of the selector; required, and no other's.
    name: String,
    /// Request and response header; required, and no other's.
    header_name: String,
    /// Label whose value the header names; required.
    label_key: String,
    /// What a header means.
    mode: SelectorMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SelectorMode {
    /// Only endpoints with the value serve the request.
    #[default]
    Strict,
    /// They serve it if there are any.
    Prefer,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Gating {
    /// Label with the revision; empty means `disaggregatedset.x-k8s.io/revision`.
    revision_label_key: String,
    /// Label with the role; empty means `disaggregatedset.x-k8s.io/role`.
    role_label_key: String,
    /// How revisions are weighed.
    mode: GatingMode,
    /// Roles of which a revision must have a pod each.
    require_roles: Required,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Required {
    /// The roles.
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum GatingMode {
    /// By all their pods.
    #[default]
    Sum,
    /// By their pods in the role that has most pods.
    MaxRole,
    /// No revision is drawn.
    Disabled,
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    if params.scope.label_selector.is_empty() {
        return Err(BuildError::at("scope.labelSelector", "is required: it says whose pods count"));
    }
    if !params.scope.namespace.is_empty() {
        cx.warn("scope.namespace is a former parameter: pods of other namespaces are not in the pool; leave it out");
    }
    let query = LabelQuery::parse(&params.scope.label_selector)
        .map_err(|message| BuildError::at("scope.labelSelector", message))?;
    let gating = params
        .revision_gating
        .ok_or_else(|| BuildError::at("revisionGating", "is required; `mode: disabled` draws no revision"))?;
    let mut selectors: Vec<Selector> = Vec::new();
    for (index, mut selector) in params.header_selectors.into_iter().enumerate() {
        selector.header_name.make_ascii_lowercase();
        for (field, value) in [
            ("name", &selector.name),
            ("headerName", &selector.header_name),
            ("labelKey", &selector.label_key),
        ] {
            if value.is_empty() {
                return Err(BuildError::at(format!("headerSelectors[{index}].{field}"), "is required"));
            }
        }
        let same =
            selectors.iter().find(|it| it.name == selector.name || it.header_name == selector.header_name);
        if let Some(other) = same {
            let message = format!("has the name or the header of the selector \"{}\"", other.name);
            return Err(BuildError::at(format!("headerSelectors[{index}]"), message));
        }
        selectors.push(selector);
    }
    let or = |given: String, usual: &str| if given.is_empty() { usual.to_owned() } else { given };
    let rollout = Arc::new(Rollout {
        namespace: params.scope.namespace,
        query,
        selectors,
        revision: or(gating.revision_label_key, REVISION),
        role: or(gating.role_label_key, ROLE),
        mode: gating.mode,
        required: gating.require_roles.values,
        weights: ArcSwapOption::empty(),
    });
    let screener: Arc<dyn Screener> = Arc::<Rollout>::clone(&rollout);
    Ok(Roles { screener: Some(screener), response_headers: Some(rollout), ..Roles::default() })
}

/// Weights of the revisions of a snapshot.
#[derive(Debug)]
struct Weights {
    version: u64,
    revisions: Vec<(String, u64)>,
}

#[derive(Debug)]
struct Rollout {
    namespace: String,
    query: LabelQuery,
    selectors: Vec<Selector>,
    revision: String,
    role: String,
    mode: GatingMode,
    required: Vec<String>,
    /// Those of the last snapshot that was seen.
    weights: ArcSwapOption<Weights>,
}

impl Rollout {
    fn weights(&self, snapshot: &Snapshot) -> Arc<Weights> {
        if let Some(known) = self.weights.load_full().filter(|known| known.version == snapshot.version()) {
            return known;
        }
        let counted = Arc::new(self.count(snapshot));
        self.weights.store(Some(Arc::clone(&counted)));
        counted
    }

    /// Counts the pods in scope by revision and role.
    fn count(&self, snapshot: &Snapshot) -> Weights {
        let mut pods = HashSet::new();
        let mut counts: BTreeMap<&str, HashMap<&str, u64>> = BTreeMap::new();
        for endpoint in snapshot.endpoints() {
            let namespace = endpoint.id().namespace();
            let within = self.namespace.is_empty() || self.namespace == namespace;
            let Some(revision) = endpoint.label(&self.revision).filter(|_| within) else { continue };
            if self.query.matches(|key| endpoint.label(key))
                && pods.insert((namespace, &*endpoint.spec().pod))
            {
                let role = endpoint.label(&self.role).unwrap_or_default();
                *counts.entry(revision).or_default().entry(role).or_default() += 1;
            }
        }
        counts.retain(|_, roles| self.required.iter().all(|role| roles.contains_key(role.as_str())));
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (role, count) in counts.values().flatten() {
            *sums.entry(*role).or_default() += *count;
        }
        let most = sums.iter().max_by_key(|(_, count)| **count).map(|(role, _)| *role);
        let weight = |roles: &HashMap<&str, u64>| match (self.mode, most) {
            (GatingMode::MaxRole, Some(role)) => roles.get(role).copied().unwrap_or_default(),
            _ => roles.values().sum(),
        };
        let revisions = counts.iter().map(|(revision, roles)| ((*revision).to_owned(), weight(roles)));
        Weights { version: snapshot.version(), revisions: revisions.collect() }
    }

    fn draw<'w>(weights: &'w Weights, rng: &mut Rng) -> Option<&'w str> {
        let sum: u64 = weights.revisions.iter().map(|(_, weight)| *weight).sum();
        let mut point = (sum > 0).then(|| rng.u64(..sum))?;
        for (revision, weight) in &weights.revisions {
            if point < *weight {
                return Some(revision);
            }
            point -= *weight;
        }
        None
    }
}

impl Screener for Rollout {
    fn screen(&self, call: &Call<'_>, rng: &mut Rng, keep: &mut Mask) {
        let header = |selector: &Selector| {
            let value = call.request.headers.get(&selector.header_name)?;
            std::str::from_utf8(value).ok().filter(|value| !value.is_empty())
        };
        let mut strict = false;
        for selector in &self.selectors {
            let Some(value) = header(selector) else { continue };
            let fits = |it: &Arc<crate::pool::Endpoint>| it.label(&selector.label_key) == Some(value);
            strict |= selector.mode == SelectorMode::Strict;
            let any = || call.endpoints().enumerate().any(|(at, it)| keep.contains(at) && fits(it));
            if selector.mode == SelectorMode::Strict || any() {
                keep.retain(call.endpoints(), fits);
            }
        }
        if strict || self.mode == GatingMode::Disabled {
            return;
        }
        let weights = self.weights(call.candidates().snapshot());
        let drawn = Self::draw(&weights, rng);
        keep.retain(call.endpoints(), |it| drawn.is_some() && it.label(&self.revision) == drawn);
    }
}

impl ResponseHeaderHook for Rollout {
    fn on_response_headers(
        &self,
        call: &ResponseCall<'_>,
        _state: &mut PluginState,
        headers: &mut HeaderEdits,
    ) {
        for selector in &self.selectors {
            if let Some(value) = call.endpoint.label(&selector.label_key) {
                headers.set(&selector.header_name, value.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, Pod, pod, request};
    use crate::request::Headers;
    use crate::scheduling::Columns;

    fn stage(name: &str, revision: &str, role: &str) -> Pod {
        pod(name).label("set", "s").label(REVISION, revision).label(ROLE, role)
    }

    fn pods() -> Vec<Pod> {
        vec![
            stage("a", "1", "prefill"),
            stage("b", "1", "decode"),
            stage("c", "1", "decode"),
            stage("d", "1", "decode"),
            stage("e", "2", "prefill"),
            stage("f", "2", "decode"),
            stage("g", "3", "decode"),
        ]
    }

    /// How often, of 1,000 requests, each set of endpoints stays.
    fn stays(pods: Vec<Pod>, more: &Value, headers: &[(&str, &str)]) -> BTreeMap<String, usize> {
        let mut params = json!({
            "scope": {"labelSelector": "set=s"},
            "revisionGating": {"requireRoles": {"values": ["prefill", "decode"]}},
            "headerSelectors": [
                {"name": "r", "headerName": "X-Rev", "labelKey": REVISION, "mode": "strict"},
                {"name": "z", "headerName": "x-zone", "labelKey": "zone", "mode": "prefer"},
            ],
        });
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        let mut fleet = Fleet::new(pods);
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let screener = built.roles.screener.as_ref().unwrap();
        let request = headers.iter().fold(request("m"), |request, (name, value)| request.header(name, value));
        let mut rng = Rng::with_seed(5);
        let mut counts = BTreeMap::new();
        for _ in 0..1000 {
            let names = fleet.call(&request, &Columns::new(), |call| {
                let mut keep = Mask::full(call.len());
                screener.screen(call, &mut rng, &mut keep);
                let kept = call.endpoints().enumerate().filter(|(at, _)| keep.contains(*at));
                kept.map(|(_, it)| it.id().name().to_owned()).collect::<String>()
            });
            *counts.entry(names).or_default() += 1;
        }
        counts
    }

    #[test]
    fn revisions_with_every_role_are_drawn_by_their_pods() {
        let sum = stays(pods(), &json!({}), &[]);
        assert_eq!(sum.keys().collect::<Vec<_>>(), ["abcd", "ef"]);
        assert!((610..=720).contains(&sum["abcd"]), "4 of 6: {sum:?}");
        let gating = json!({"mode": "max-role", "requireRoles": {"values": ["prefill", "decode"]}});
        let most = stays(pods(), &json!({"revisionGating": gating}), &[]);
        assert!((700..=800).contains(&most["abcd"]), "3 of 4: {most:?}");
        let off = stays(pods(), &json!({"revisionGating": {"mode": "disabled"}}), &[]);
        assert_eq!(off.keys().collect::<Vec<_>>(), ["abcdefg"]);
    }

    #[test]
    fn a_strict_header_skips_the_draw_and_a_preferred_value_counts_if_anybody_has_it() {
        assert_eq!(stays(pods(), &json!({}), &[("x-rev", "3")]).keys().collect::<Vec<_>>(), ["g"]);
        assert_eq!(stays(pods(), &json!({}), &[("x-rev", "9")]).keys().collect::<Vec<_>>(), [""]);
        let mut zoned = pods();
        zoned[1] = stage("b", "1", "decode").label("zone", "n");
        let off = json!({"revisionGating": {"mode": "disabled"}});
        assert_eq!(stays(zoned, &off, &[("x-zone", "n")]).keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(stays(pods(), &off, &[("x-zone", "n")]).keys().collect::<Vec<_>>(), ["abcdefg"]);
    }

    #[test]
    fn pods_out_of_scope_count_for_nothing_and_without_a_whole_revision_nobody_stays() {
        let elsewhere = json!({"scope": {"labelSelector": "set=other"}});
        assert_eq!(stays(pods(), &elsewhere, &[]).keys().collect::<Vec<_>>(), [""]);
        let namespace = json!({"scope": {"labelSelector": "set=s", "namespace": "elsewhere"}});
        assert_eq!(stays(pods(), &namespace, &[]).keys().collect::<Vec<_>>(), [""]);
        assert_eq!(stays(vec![stage("g", "3", "decode")], &json!({}), &[]).keys().collect::<Vec<_>>(), [""]);
        assert_eq!(stays(Vec::new(), &json!({}), &[]).keys().collect::<Vec<_>>(), [""]);
    }

    #[test]
    fn responses_tell_the_labels_of_the_endpoint() {
        let mut fleet = Fleet::new([stage("a", "7", "decode")]);
        let params = json!({
            "scope": {"labelSelector": "set=s"}, "revisionGating": {},
            "headerSelectors": [{"name": "r", "headerName": "x-rev", "labelKey": REVISION}],
        });
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let decision = fleet.decision(&[Some(0)], &[]);
        let call = ResponseCall {
            headers: &Headers::new(),
            served: None,
            endpoint: &decision.targets()[0],
            decision: &decision,
            profiles: &["default".into()],
        };
        let mut edits = HeaderEdits::default();
        built.roles.response_headers.as_ref().unwrap().on_response_headers(&call, &mut None, &mut edits);
        assert_eq!(edits.set[0], ("x-rev".into(), "7".into()));
    }

    #[test]
    fn faults_name_their_parameter() {
        let scope = json!({"labelSelector": "a=b"});
        for (params, path) in [
            (json!({}), "scope.labelSelector"),
            (json!({"scope": {"labelSelector": "a in ("}}), "scope.labelSelector"),
            (json!({"scope": scope}), "revisionGating"),
            (json!({"scope": scope, "revisionGating": {"mode": "most"}}), "revisionGating.mode"),
            (
                json!({"scope": scope, "revisionGating": {}, "headerSelectors": [{"name": "a"}]}),
                "headerSelectors[0].headerName",
            ),
        ] {
            let error = Fleet::new([]).build(&TYPE, Some(params.clone())).map(|_| ()).unwrap_err();
            assert_eq!(error.path, path, "{params}");
        }
    }
}
