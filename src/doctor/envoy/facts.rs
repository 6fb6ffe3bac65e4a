//! The facts in a configuration of Envoy: a dump of its admin port, or the file that it starts with.

use serde_json::Value;

/// The facts of one Envoy that the rules need.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnvoyFacts {
    /// The major and the minor version; `None` if the facts come from a file.
    pub version: Option<(u32, u32)>,
    /// Each route on which Envoy asks a picker.
    pub routes: Vec<RouteFacts>,
}

/// A route on which Envoy asks a picker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteFacts {
    /// The name of the listener, and the cluster of the route.
    pub name: String,
    /// The types of the HTTP filters in front of the picker's, without their package.
    pub in_front: Vec<String>,
    /// Requests go on if the picker does not answer.
    pub fails_open: bool,
    /// The cluster sends requests to the address in the picker's header.
    pub follows_header: bool,
    /// The longest wait for an answer of the picker, in seconds.
    pub message_timeout: f64,
    /// The longest life of a stream to the picker, in seconds.
    pub stream_timeout: Option<f64>,
    /// The parts of requests that the picker sees.
    pub request: SideFacts,
    /// The parts of responses that the picker sees.
    pub response: SideFacts,
    /// The most bytes that Envoy buffers.
    pub buffer: u64,
    /// The longest time for a whole answer, in seconds; 0 sets no limit.
    pub timeout: f64,
    /// The route sets that time itself.
    pub timeout_given: bool,
    /// The longest time without any bytes, in seconds; 0 sets no limit.
    pub idle_timeout: f64,
    /// The longest life of a request, in seconds.
    pub duration: Option<f64>,
    /// The conditions under which Envoy sends a request again.
    pub retry_on: String,
    /// The longest time for one attempt, in seconds.
    pub per_try_timeout: Option<f64>,
}

/// The parts of a request or a response that the picker sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideFacts {
    /// The picker sees the headers.
    pub headers: bool,
    /// The mode in which the picker sees the body.
    pub body: String,
}

/// Envoy's default timeout of a route, in seconds.
const ROUTE_TIMEOUT: f64 = 15.0;
/// Envoy's default idle timeout of a stream, in seconds.
const STREAM_IDLE: f64 = 300.0;
/// Envoy's default time for an answer of an external processor, in seconds.
const MESSAGE_TIMEOUT: f64 = 0.2;
/// Envoy's default buffer of a connection, in bytes.
const BUFFER: u64 = 1 << 20;
/// The most routes that are examined.
const MOST_ROUTES: usize = 1000;

impl EnvoyFacts {
    /// Reads the facts from `/config_dump` and `/server_info` of the admin port.
    pub fn of_dump(dump: &Value, info: &Value) -> Self {
        let (mut listeners, mut routes, mut clusters) = (Vec::new(), Vec::new(), Vec::new());
        for part in dump["configs"].as_array().into_iter().flatten() {
            for row in rows(part, &["static_listeners"]) {
                listeners.push(&row["listener"]);
            }
            for row in rows(part, &["dynamic_listeners"]) {
                listeners.push(&row["active_state"]["listener"]);
            }
            for row in rows(part, &["static_route_configs", "dynamic_route_configs"]) {
                routes.push(&row["route_config"]);
            }
            for row in rows(part, &["static_clusters", "dynamic_active_clusters"]) {
                clusters.push(&row["cluster"]);
            }
        }
        let found = Found { routes, clusters };
        Self { version: version(info), routes: found.of(&listeners) }
    }

    /// Reads the facts from the file that Envoy starts with.
    pub fn of_file(file: &Value) -> Self {
        let all = &file["static_resources"];
        let found = Found { routes: Vec::new(), clusters: rows(all, &["clusters"]).collect() };
        let listeners: Vec<&Value> = rows(all, &["listeners"]).collect();
        Self { version: None, routes: found.of(&listeners) }
    }
}

fn rows<'v>(part: &'v Value, names: &[&str]) -> impl Iterator<Item = &'v Value> {
    names.iter().filter_map(|name| part[*name].as_array()).flatten().collect::<Vec<_>>().into_iter()
}

/// The numbers 1 and 40 of a version such as `0a1b2c/1.40.0/Clean/RELEASE/BoringSSL`.
fn version(info: &Value) -> Option<(u32, u32)> {
    let text = info["version"].as_str()?;
    text.split('/').find_map(|part| {
        let mut numbers = part.split('.');
        let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        numbers.next().map(|_| (major, minor))
    })
}

/// The route configurations and the clusters of an Envoy.
struct Found<'d> {
    routes: Vec<&'d Value>,
    clusters: Vec<&'d Value>,
}

impl<'d> Found<'d> {
    fn of(&self, listeners: &[&'d Value]) -> Vec<RouteFacts> {
        let mut found = Vec::new();
        for listener in listeners {
            let mut managers = Vec::new();
            gather(listener, &mut managers);
            for manager in managers {
                self.manager(listener, manager, &mut found);
            }
        }
        found
    }

    fn manager(&self, listener: &Value, manager: &'d Value, found: &mut Vec<RouteFacts>) {
        let filters: Vec<&Value> = rows(manager, &["http_filters"]).collect();
        let Some(place) = filters.iter().rposition(|filter| kind(filter) == "ExternalProcessor") else {
            return;
        };
        let config = if manager["route_config"].is_object() {
            Some(&manager["route_config"])
        } else {
            let name = &manager["rds"]["route_config_name"];
            self.routes.iter().copied().find(|config| &config["name"] == name)
        };
        let hosts = config.into_iter().flat_map(|config| rows(config, &["virtual_hosts"]));
        let routes = hosts.flat_map(|host| rows(host, &["routes"]));
        for route in routes.filter(|route| route["route"].is_object()) {
            let own = &route["typed_per_filter_config"][filters[place]["name"].as_str().unwrap_or_default()];
            let own = if own["config"].is_object() { &own["config"] } else { own };
            let off = |value: &Value| value["disabled"] == true;
            let asked = !off(own) && (!off(filters[place]) || own["overrides"].is_object());
            if asked && found.len() < MOST_ROUTES {
                let front = filters[..place].iter().map(|filter| kind(filter).to_owned()).collect();
                let processor =
                    Processor { general: &filters[place]["typed_config"], own: &own["overrides"] };
                found.push(self.route(listener, manager, route, &processor, front));
            }
        }
    }

    fn route(
        &self,
        listener: &Value,
        manager: &Value,
        route: &Value,
        processor: &Processor<'_>,
        in_front: Vec<String>,
    ) -> RouteFacts {
        let action = &route["route"];
        let cluster = action["cluster"].as_str().unwrap_or("several clusters");
        let is_header =
            |found: &&&Value| found["name"] == cluster && found["original_dst_lb_config"].is_object();
        let idle = seconds(&manager["stream_idle_timeout"]).unwrap_or(STREAM_IDLE);
        let buffer = &listener["per_connection_buffer_limit_bytes"];
        let general = &manager["common_http_protocol_options"]["max_stream_duration"];
        let duration = &action["max_stream_duration"]["max_stream_duration"];
        let retry = &action["retry_policy"];
        RouteFacts {
            name: format!("{}, route to {cluster}", listener["name"].as_str().unwrap_or("listener")),
            in_front,
            fails_open: processor.get("failure_mode_allow") == &Value::Bool(true),
            follows_header: self.clusters.iter().any(|found| is_header(&found)),
            message_timeout: seconds(&processor.general["message_timeout"]).unwrap_or(MESSAGE_TIMEOUT),
            stream_timeout: seconds(&processor.get("grpc_service")["timeout"]).filter(|time| *time > 0.0),
            request: processor.side("request"),
            response: processor.side("response"),
            buffer: buffer.as_u64().unwrap_or(BUFFER),
            timeout: seconds(&action["timeout"]).unwrap_or(ROUTE_TIMEOUT),
            timeout_given: !action["timeout"].is_null(),
            idle_timeout: seconds(&action["idle_timeout"]).unwrap_or(idle),
            duration: seconds(duration).or_else(|| seconds(general)).filter(|time| *time > 0.0),
            retry_on: retry["retry_on"].as_str().unwrap_or_default().to_owned(),
            per_try_timeout: seconds(&retry["per_try_timeout"]).filter(|time| *time > 0.0),
        }
    }
}

/// The settings of the filter that asks the picker, and those that a route sets otherwise.
struct Processor<'d> {
    general: &'d Value,
    own: &'d Value,
}

impl<'d> Processor<'d> {
    fn get(&self, name: &str) -> &'d Value {
        if self.own[name].is_null() { &self.general[name] } else { &self.own[name] }
    }

    fn side(&self, side: &str) -> SideFacts {
        let mode = self.get("processing_mode");
        let text = |name: &str| mode[format!("{side}_{name}")].as_str();
        SideFacts {
            headers: text("header_mode") != Some("SKIP"),
            body: text("body_mode").unwrap_or("NONE").to_owned(),
        }
    }
}

/// Collects the HTTP connection managers in a listener, at any depth.
fn gather<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            if type_of(value) == "HttpConnectionManager" {
                found.push(value);
                return;
            }
            fields.values().for_each(|field| gather(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
        _ => {}
    }
}

/// The type of a filter's configuration, without its package.
fn kind(filter: &Value) -> &str {
    type_of(&filter["typed_config"])
}

fn type_of(value: &Value) -> &str {
    let text = value["@type"].as_str().unwrap_or_default();
    text.rsplit(['.', '/']).next().unwrap_or_default()
}

/// Reads a time span as JSON of protocol buffers writes it, such as `15s` or `0.200s`.
fn seconds(value: &Value) -> Option<f64> {
    value.as_str()?.strip_suffix('s')?.parse().ok()
}
