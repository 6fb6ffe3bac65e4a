//! What an endpoints file says. It is good as a whole or not at all: with any fault, everything wrong with it is the
//! answer.
//!
//! ```yaml
//! endpoints:                       # required; `endpoints: []` is a pool without endpoints
//! - name: vllm-0                   # required, unique within the namespace
//!   namespace: default             # the default
//!   address: 10.0.0.10             # IPv4 or IPv6, or a host name: each of its addresses is an endpoint
//!   port: "8000"
//!   metricsPort: "8001"            # the port of metrics, where it is another
//!   metricsScheme: https           # or http; of the metrics source by default
//!   labels: {llm-d.ai/engine-type: vllm}
//! objectives:                      # flat, or with `metadata` and `spec` like the resource
//! - {name: batch, priority: -10}
//! modelRewrites:
//! - name: canary
//!   rules:
//!   - matches: [{model: {value: llama}}]
//!     targets: [{modelRewrite: llama-3.3-70b, weight: 1}]
//! ```
//!
//! Fields that mean nothing are warnings. In a file that is refused they are told too, beside the faults: a misspelt
//! field is often the reason why another one is missing. A rewrite without `creationTimestamp` is older than all with one; among
//! themselves the earlier in the file is the older.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::hosts::{At, Hosts};
use crate::document::{Fields, Level, MAX_DOCUMENT_BYTES, Node, NodeValue, Problem, Problems, parse};
use crate::pool::{
    EndpointId, EndpointSpec, Labels, MAX_TARGET_NAME, MetricsAccess, ModelRewrite, RewriteRule,
    RewriteTarget,
};
use crate::telemetry::unix_seconds;

/// An InferenceObjective.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileObjective {
    /// Name.
    pub name: String,
    /// Priority; 0 if none is given.
    pub priority: i32,
    /// Pool it is for; `None` for any.
    pub pool: Option<String>,
}

/// An InferenceModelRewrite.
#[derive(Clone, Debug, PartialEq)]
pub struct FileRewrite {
    /// The resource.
    pub rewrite: ModelRewrite,
    /// Pool it is for; `None` for any.
    pub pool: Option<String>,
}

/// Everything an endpoints file says.
#[derive(Clone, Debug, PartialEq)]
pub struct FileState {
    /// Endpoints in file order. The address of one with a host name is no address yet, but holds the port.
    pub endpoints: Vec<EndpointSpec>,
    /// Host names of endpoints, and where else they are scraped.
    pub hosts: Hosts,
    /// Objectives in file order.
    pub objectives: Vec<FileObjective>,
    /// Rewrites in file order.
    pub rewrites: Vec<FileRewrite>,
    /// Fields and values that have no effect.
    pub warnings: Vec<Problem>,
}

impl FileState {
    /// Reads the content of the file called `source`. `Err` holds every fault, with line, path and name of the entry.
    pub fn parse(bytes: &[u8], source: &str) -> Result<Self, Problems> {
        let mut problems = Problems::new(source);
        let state = read(bytes, &mut problems);
        problems.sort();
        match state {
            Some(mut state) if !problems.has_errors() => {
                state.warnings = problems.iter().cloned().collect();
                Ok(state)
            }
            _ => Err(problems),
        }
    }

    /// The same for a file whose endpoints are clusters: the labels `metricsAddress` and `metricsPort` say where one is
    /// scraped.
    pub fn parse_clusters(bytes: &[u8], source: &str) -> Result<Self, Problems> {
        let mut state = Self::parse(bytes, source)?;
        let mut problems = Problems::new(source);
        state.hosts.of_clusters(&mut state.endpoints, &mut problems);
        if problems.has_errors() { Err(problems) } else { Ok(state) }
    }
}

fn read(bytes: &[u8], problems: &mut Problems) -> Option<FileState> {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        problems.error(0, "", format!("is larger than {MAX_DOCUMENT_BYTES} bytes"));
        return None;
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| problems.error(0, "", "holds bytes that are not UTF-8"))
        .ok()?;
    let root = parse(text).map_err(|fault| problems.error(fault.line, "", fault.message)).ok()?;
    // A file that is being written looks empty for a moment. It must not empty the pool.
    let Some(root) = root else {
        problems.error(0, "", "is empty; a pool without endpoints is written as `endpoints: []`");
        return None;
    };
    let mut fields = Fields::of(&root, "", problems)?;
    let (endpoints, hosts) = endpoints(&mut fields, problems);
    let objectives = resources(&mut fields, "objectives", problems, objective);
    let rewrites = resources(&mut fields, "modelRewrites", problems, rewrite);
    fields.finish(Level::Warning, problems);
    let mut state = FileState { endpoints, hosts, objectives, rewrites, warnings: Vec::new() };
    for (rewrite, age) in state.rewrites.iter_mut().zip(NO_TIME + 1..) {
        if rewrite.rewrite.created == NO_TIME {
            rewrite.rewrite.created = age;
        }
    }
    Some(state)
}

/// Stands for a creation time that is not given.
const NO_TIME: i64 = i64::MIN;

type Endpoints = (Vec<EndpointSpec>, Hosts);

fn endpoints(fields: &mut Fields<'_>, problems: &mut Problems) -> Endpoints {
    let mut list: Vec<EndpointSpec> = Vec::new();
    let mut hosts = Hosts::default();
    if fields.get("endpoints").is_none() {
        let message = "is required; a pool without endpoints is written as `endpoints: []`";
        problems.error(fields.line_of("endpoints"), "endpoints", message);
        return (list, hosts);
    }
    let mut names = Names::default();
    let mut addresses: HashMap<SocketAddr, u32> = HashMap::new();
    for (index, node) in fields.list("endpoints", problems).iter().enumerate() {
        let path = format!("endpoints[{index}]");
        let Some((endpoint, host)) = endpoint(node, &path, &mut names, problems) else { continue };
        if let Some(host) = host {
            hosts.serving.insert(list.len(), host);
        } else if let Some(first) = addresses.insert(endpoint.address, node.line) {
            let (id, address) = (&endpoint.id, endpoint.address);
            let message = format!("{id} has the address {address} of the endpoint in line {first}");
            problems.warning(node.line, &path, message);
            addresses.insert(endpoint.address, first);
        }
        list.push(endpoint);
    }
    (list, hosts)
}

/// Names of the endpoints so far, each with its line.
type Names = HashMap<EndpointId, u32>;

/// An endpoint, and its host name if it has one in place of an address. `None` after any fault, when all faults of
/// the entry have been told. A name counts as taken whatever else is wrong with its entry.
fn endpoint(
    node: &Node,
    path: &str,
    names: &mut Names,
    problems: &mut Problems,
) -> Option<(EndpointSpec, Option<Arc<str>>)> {
    let mut fields = Fields::of(node, path, problems)?;
    let name = required_text(&mut fields, "name", "", problems);
    let named = name.map(|name| format!(" (endpoint \"{name}\")")).unwrap_or_default();
    let namespace = fields.text("namespace", problems).filter(|text| !text.is_empty()).unwrap_or("default");
    let at = required_text(&mut fields, "address", &named, problems).and_then(|text| {
        let at = At::read(text);
        if at.is_none() {
            let message = format!("got \"{text}\", expected an IPv4 or IPv6 address or a host name{named}");
            problems.error(fields.line_of("address"), fields.path("address"), message);
        }
        at
    });
    if fields.get("port").is_none() {
        problems.error(fields.line_of("port"), fields.path("port"), format!("is required{named}"));
    }
    let served = port(&mut fields, "port", &named, problems);
    let metrics = MetricsAccess {
        port: port(&mut fields, "metricsPort", &named, problems),
        https: scheme_of_metrics(&mut fields, &named, problems),
        host: None,
    };
    let labels = labels(&mut fields, &named, problems);
    fields.finish(Level::Warning, problems);
    let id = EndpointId::new(namespace, name?);
    if let Some(first) = names.get(&id) {
        problems.error(node.line, format!("{path}.name"), format!("{id} is listed already, in line {first}"));
        return None;
    }
    names.insert(id.clone(), node.line);
    let (ip, host) = match at? {
        At::Address(ip) => (ip, None),
        At::Host(host) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), Some(host)),
    };
    let mut spec = EndpointSpec::new(id, SocketAddr::new(ip, served?));
    spec.labels = Arc::new(labels);
    spec.metrics = metrics;
    if let Some(port) = spec.metrics.port {
        spec.metrics_address.set_port(port);
    }
    spec.metrics.host.clone_from(&host);
    Some((spec, host))
}

/// True for `https`; `scheme` is a shorter name of the field.
fn scheme_of_metrics(fields: &mut Fields<'_>, named: &str, problems: &mut Problems) -> Option<bool> {
    let (long, short) = (fields.text("metricsScheme", problems), fields.text("scheme", problems));
    let (field, text) = long.map(|text| ("metricsScheme", text)).or(short.map(|text| ("scheme", text)))?;
    match text.to_ascii_lowercase().as_str() {
        "http" => Some(false),
        "https" => Some(true),
        _ => {
            let message = format!("got \"{text}\", expected \"http\" or \"https\"{named}");
            problems.error(fields.line_of(field), fields.path(field), message);
            None
        }
    }
}

/// A string that must be there and not empty.
fn required_text<'d>(
    fields: &mut Fields<'d>,
    name: &'static str,
    named: &str,
    problems: &mut Problems,
) -> Option<&'d str> {
    if fields.get(name).is_none() {
        problems.error(fields.line_of(name), fields.path(name), format!("is required{named}"));
        return None;
    }
    let text = fields.text(name, problems)?;
    if text.is_empty() {
        problems.error(fields.line_of(name), fields.path(name), format!("is empty{named}"));
        return None;
    }
    Some(text)
}

/// A port, quoted as the reference wants it or not; `None` if it is absent.
fn port(fields: &mut Fields<'_>, name: &'static str, named: &str, problems: &mut Problems) -> Option<u16> {
    let path = fields.path(name);
    let node = fields.get(name)?;
    let port = match &node.value {
        NodeValue::Text(text) => text.parse::<u16>().ok(),
        NodeValue::Number(number) => number.as_u64().and_then(|port| u16::try_from(port).ok()),
        _ => None,
    };
    let port = port.filter(|port| *port != 0);
    if port.is_none() {
        problems.error(
            fields.line_of(name),
            path,
            format!("got {node}, expected a port from 1 to 65535{named}"),
        );
    }
    port
}

fn labels(fields: &mut Fields<'_>, named: &str, problems: &mut Problems) -> Labels {
    let mut labels = Labels::new();
    let path = fields.path("labels");
    let Some(node) = fields.get("labels") else { return labels };
    let Some(map) = node.as_map() else {
        problems.error(fields.line_of("labels"), path, format!("got {node}, expected a mapping{named}"));
        return labels;
    };
    for (key, value) in map {
        let path = format!("{path}.{}", key.text);
        let Some(text) = value.as_text() else {
            let message = format!("got {value}, expected a string in quotes{named}");
            problems.error(key.line, path, message);
            continue;
        };
        if labels.insert(key.text.clone(), text.to_owned()).is_some() {
            problems.error(key.line, path, format!("is given twice{named}"));
        }
    }
    labels
}

/// Name of a resource, empty if that is at fault, and its creation time if it has one.
#[derive(Clone, Default)]
struct Header {
    name: String,
    created: Option<i64>,
}

/// A list of resources with unique names; `read` reads what is special about one.
fn resources<T>(
    fields: &mut Fields<'_>,
    field: &'static str,
    problems: &mut Problems,
    read: fn(Header, &mut Fields<'_>, &mut Problems) -> T,
) -> Vec<T> {
    let mut names: HashMap<String, u32> = HashMap::new();
    let mut list = Vec::new();
    for (index, node) in fields.list(field, problems).iter().enumerate() {
        let path = format!("{field}[{index}]");
        let Some(mut outer) = Fields::of(node, &path, problems) else { continue };
        // As a resource of Kubernetes, copied; or flat.
        let is_resource = outer.get("spec").is_some() || outer.get("metadata").is_some();
        let header = if is_resource {
            resource_header(&mut outer, problems)
        } else {
            flat_header(&mut outer, problems)
        };
        let resource = if is_resource {
            for ignored in ["apiVersion", "kind", "status"] {
                outer.get(ignored);
            }
            let spec_path = outer.path("spec");
            let spec = outer.get("spec").and_then(|node| Fields::of(node, &spec_path, problems));
            if let Some(mut inner) = spec {
                let resource = read(header.clone(), &mut inner, problems);
                inner.finish(Level::Warning, problems);
                Some(resource)
            } else {
                problems.error(outer.line(), spec_path, format!("is required (\"{}\")", header.name));
                None
            }
        } else {
            Some(read(header.clone(), &mut outer, problems))
        };
        outer.finish(Level::Warning, problems);
        if !header.name.is_empty()
            && let Some(first) = names.insert(header.name.clone(), node.line)
        {
            problems.error(
                node.line,
                &path,
                format!("\"{}\" is listed already, in line {first}", header.name),
            );
        }
        list.extend(resource);
    }
    list
}

/// The name beside the other fields.
fn flat_header(fields: &mut Fields<'_>, problems: &mut Problems) -> Header {
    let name = required_text(fields, "name", "", problems).unwrap_or_default().to_owned();
    Header { name, created: None }
}

/// Name and creation time out of `metadata`, whose many other fields mean nothing here.
fn resource_header(outer: &mut Fields<'_>, problems: &mut Problems) -> Header {
    let path = outer.path("metadata");
    let Some(node) = outer.get("metadata") else {
        problems.error(outer.line(), path, "is required");
        return Header::default();
    };
    let Some(mut fields) = Fields::of(node, &path, problems) else { return Header::default() };
    let name = required_text(&mut fields, "name", "", problems).unwrap_or_default().to_owned();
    let created = fields.text("creationTimestamp", problems).and_then(|text| {
        let seconds = unix_seconds(text);
        if seconds.is_none() {
            let message =
                format!("got \"{text}\", expected a time such as 2024-05-01T12:00:00Z (\"{name}\")");
            problems.error(fields.line_of("creationTimestamp"), fields.path("creationTimestamp"), message);
        }
        seconds
    });
    Header { name, created }
}

/// Name of the pool a resource is for.
fn pool_ref(fields: &mut Fields<'_>, problems: &mut Problems) -> Option<String> {
    let path = fields.path("poolRef");
    let node = fields.get("poolRef")?;
    if let Some(name) = node.as_text() {
        return Some(name.to_owned());
    }
    let mut inner = Fields::of(node, &path, problems)?;
    inner.get("group");
    inner.get("kind");
    let name = required_text(&mut inner, "name", "", problems).map(str::to_owned);
    inner.finish(Level::Warning, problems);
    name
}

fn objective(header: Header, fields: &mut Fields<'_>, problems: &mut Problems) -> FileObjective {
    let priority = fields.integer("priority", problems).unwrap_or(0);
    FileObjective { name: header.name, priority, pool: pool_ref(fields, problems) }
}

fn rewrite(header: Header, fields: &mut Fields<'_>, problems: &mut Problems) -> FileRewrite {
    let at = fields.path("rules");
    let mut rules = Vec::new();
    for (index, node) in fields.list("rules", problems).iter().enumerate() {
        rules.extend(rule(node, &format!("{at}[{index}]"), &header.name, problems));
    }
    let created = header.created.unwrap_or(NO_TIME);
    let pool = pool_ref(fields, problems);
    FileRewrite { rewrite: ModelRewrite { name: header.name, created, rules }, pool }
}

fn rule(node: &Node, path: &str, name: &str, problems: &mut Problems) -> Option<RewriteRule> {
    let named = format!(" (rewrite \"{name}\")");
    let mut fields = Fields::of(node, path, problems)?;
    let mut rule = RewriteRule::default();
    for (index, node) in fields.list("matches", problems).iter().enumerate() {
        let path = format!("{path}.matches[{index}]");
        let Some(mut row) = Fields::of(node, &path, problems) else { continue };
        let model_path = row.path("model");
        let Some(model) = row.get("model") else {
            problems.error(row.line(), model_path, format!("is required{named}"));
            continue;
        };
        if let Some(mut model) = Fields::of(model, &model_path, problems) {
            if let Some(kind) = model.text("type", problems).filter(|kind| *kind != "Exact") {
                let message = format!("got \"{kind}\", expected \"Exact\"{named}");
                problems.error(model.line_of("type"), model.path("type"), message);
            }
            rule.models.extend(required_text(&mut model, "value", &named, problems).map(str::to_owned));
            model.finish(Level::Warning, problems);
        }
        row.finish(Level::Warning, problems);
    }
    for (index, node) in fields.list("targets", problems).iter().enumerate() {
        let path = format!("{path}.targets[{index}]");
        let Some(mut row) = Fields::of(node, &path, problems) else { continue };
        let model = required_text(&mut row, "modelRewrite", &named, problems).unwrap_or_default().to_owned();
        if model.len() > MAX_TARGET_NAME {
            let message = format!("got {} bytes, expected at most {MAX_TARGET_NAME}{named}", model.len());
            problems.error(row.line_of("modelRewrite"), row.path("modelRewrite"), message);
        }
        let weight = row.integer("weight", problems);
        if let Some(weight) = weight.filter(|weight| !(1..=1_000_000).contains(weight)) {
            let message = format!("got {weight}, expected a weight from 1 to 1000000{named}");
            problems.error(row.line_of("weight"), row.path("weight"), message);
        }
        row.finish(Level::Warning, problems);
        rule.targets
            .push(RewriteTarget { model, weight: weight.and_then(|weight| u32::try_from(weight).ok()) });
    }
    if rule.targets.is_empty() {
        problems.error(
            fields.line_of("targets"),
            fields.path("targets"),
            format!("needs at least one target{named}"),
        );
    }
    let weighted = rule.targets.iter().filter(|target| target.weight.is_some()).count();
    if weighted != 0 && weighted != rule.targets.len() {
        let message = format!("targets without a weight beside weighted ones are never chosen{named}");
        problems.warning(fields.line_of("targets"), fields.path("targets"), message);
    }
    fields.finish(Level::Warning, problems);
    Some(rule)
}

#[cfg(test)]
#[path = "file_state_tests.rs"]
mod tests;
