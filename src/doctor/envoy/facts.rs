//! The facts in a configuration of Envoy: a dump of its admin port, or the file it starts with.

use serde_json::Value;

/// What counts of an Envoy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EnvoyFacts {
    /// Major and minor version; `None` for a file.
    pub version: Option<(u32, u32)>,
    /// Each route on which a picker is asked.
    pub routes: Vec<RouteFacts>,
}

/// A route on which a picker is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteFacts {
    /// Name of the listener or of the route configuration, and the route's cluster.
    pub name: String,
    /// Types of the HTTP filters in front of the picker's, without their package.
    pub in_front: Vec<String>,
    /// Requests go on without a picker.
    pub fails_open: bool,
    /// The cluster goes where the picker's header says.
    pub follows_header: bool,
    /// Longest wait for an answer of the picker, in seconds.
    pub message_timeout: f64,
    /// Longest life of a stream to the picker, in seconds.
    pub stream_timeout: Option<f64>,
    /// How requests are shown to the picker.
    pub request: SideFacts,
    /// How responses are.
    pub response: SideFacts,
    /// Bytes that are buffered at most.
    pub buffer: u64,
    /// Longest time for a whole answer, in seconds; 0 for no bound.
    pub timeout: f64,
    /// The route names that time.
    pub timeout_given: bool,
    /// Longest silence, in seconds; 0 for no bound.
    pub idle_timeout: f64,
    /// Longest life of a request, in seconds.
    pub duration: Option<f64>,
    /// Conditions under which a request is sent again.
    pub retry_on: String,
    /// Longest time for one attempt, in seconds.
    pub per_try_timeout: Option<f64>,
}

/// How one way is shown to the picker.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SideFacts {
    /// Headers are shown.
    pub headers: bool,
    /// Mode of the body.
    pub body: String,
}

/// Envoy's time for a route without one, in seconds.
const ROUTE_TIMEOUT: f64 = 15.0;
/// Envoy's time for a silent stream, in seconds.
const STREAM_IDLE: f64 = 300.0;
/// Envoy's time for an answer of an external processor, in seconds.
const MESSAGE_TIMEOUT: f64 = 0.2;
/// Envoy's buffer of a connection, in bytes.
const BUFFER: u64 = 1 << 20;
/// Most routes that are looked at.
const MOST_ROUTES: usize = 1000;

impl EnvoyFacts {
    /// Of `/config_dump` and `/server_info`.
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

    /// Of the file that Envoy starts with.
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

/// `1.40` of a version such as `0a1b2c/1.40.0/Clean/RELEASE/BoringSSL`.
fn version(info: &Value) -> Option<(u32, u32)> {
    let text = info["version"].as_str()?;
    text.split('/').find_map(|part| {
        let mut numbers = part.split('.');
        let (major, minor) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        numbers.next().map(|_| (major, minor))
    })
}

/// Route configurations and clusters by name.
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

/// The filter that asks the picker, and what a route says otherwise.
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

/// Connection managers in a listener, however deep.
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

/// Type of a filter's configuration, without its package.
fn kind(filter: &Value) -> &str {
    type_of(&filter["typed_config"])
}

fn type_of(value: &Value) -> &str {
    let text = value["@type"].as_str().unwrap_or_default();
    text.rsplit(['.', '/']).next().unwrap_or_default()
}

/// A span as JSON of protocol buffers writes it: `15s`, `0.200s`.
fn seconds(value: &Value) -> Option<f64> {
    value.as_str()?.strip_suffix('s')?.parse().ok()
}
