//! The settings in the `OTEL_*` environment variables.

use std::time::Duration;

use opentelemetry_sdk::trace::Sampler;

/// Name under which spans are reported unless the environment has another.
const SERVICE: &str = "llm-d-epp";

/// Share of root traces that are sampled unless the environment has another.
const RATIO: f64 = 0.1;

/// Where an OTLP collector listens unless the environment has another address.
const COLLECTOR: &str = "http://localhost:4317";

/// Where spans go and which are taken.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) exporter: Exporter,
    pub(super) sampler: Sampler,
    /// An unsampled caller decides; nothing has to be built for its requests.
    pub(super) parent_decides: bool,
    /// Attributes of the resource; `service.name` and `service.version` are among them.
    pub(super) resource: Vec<(String, String)>,
    /// Settings that were not understood, and what holds instead.
    pub(super) problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exporter {
    /// Spans are not made. Headers of the caller pass by untouched.
    None,
    /// One JSON line for each span on standard output.
    Console,
    /// OTLP over gRPC.
    Otlp(Otlp),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Otlp {
    /// `http://…` or `https://…`.
    pub(super) endpoint: String,
    pub(super) timeout: Duration,
    /// PEM file of the authorities to trust.
    pub(super) certificate: Option<String>,
    /// PEM files of the client certificate and its key.
    pub(super) client: Option<(String, String)>,
}

impl Settings {
    /// Reads the variables through `lookup`. Empty values count as unset.
    pub(super) fn read(lookup: impl Fn(&str) -> Option<String>, build_ref: &str) -> Self {
        let get =
            |name: &str| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut problems = Vec::new();
        let (sampler, parent_decides) = sampler(&get, &mut problems);
        let exporter = exporter(&get, &mut problems);
        let resource = resource(&get, build_ref, &mut problems);
        Self { exporter, sampler, parent_decides, resource, problems }
    }
}

impl Settings {
    /// Reports as `service`, unless the environment says another name.
    pub(super) fn name_service(&mut self, service: &str) {
        for (key, value) in &mut self.resource {
            if key == "service.name" && value == SERVICE {
                service.clone_into(value);
            }
        }
    }
}

fn exporter(get: &impl Fn(&str) -> Option<String>, problems: &mut Vec<String>) -> Exporter {
    let disabled = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let has_collector =
        get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| get("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let default = if has_collector.is_some() { "otlp" } else { "none" };
    let kind = get("OTEL_TRACES_EXPORTER").unwrap_or_else(|| default.to_owned());
    match kind.to_ascii_lowercase().as_str() {
        _ if disabled => Exporter::None,
        "none" => Exporter::None,
        "console" | "stdout" | "logging" => Exporter::Console,
        "otlp" => Exporter::Otlp(otlp(get, problems)),
        _ => {
            problems.push(format!(
                "OTEL_TRACES_EXPORTER {kind:?} is none of otlp, console, none: no spans are exported"
            ));
            Exporter::None
        }
    }
}

fn otlp(get: &impl Fn(&str) -> Option<String>, problems: &mut Vec<String>) -> Otlp {
    let of = |name: &str| {
        get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
            .or_else(|| get(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    let endpoint = of("ENDPOINT").unwrap_or_else(|| COLLECTOR.to_owned());
    let endpoint = if endpoint.contains("://") {
        endpoint
    } else {
        let insecure = of("INSECURE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        format!("{}://{endpoint}", if insecure { "http" } else { "https" })
    };
    if let Some(protocol) = of("PROTOCOL").filter(|protocol| protocol != "grpc") {
        problems.push(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL {protocol:?} is not supported: spans go out over gRPC"
        ));
    }
    let milliseconds = of("TIMEOUT").and_then(|value| value.parse().ok()).unwrap_or(10_000);
    Otlp {
        endpoint,
        timeout: Duration::from_millis(milliseconds),
        certificate: of("CERTIFICATE"),
        client: of("CLIENT_CERTIFICATE").zip(of("CLIENT_KEY")),
    }
}

fn sampler(get: &impl Fn(&str) -> Option<String>, problems: &mut Vec<String>) -> (Sampler, bool) {
    let ratio = match get("OTEL_TRACES_SAMPLER_ARG").map(|text| (text.parse::<f64>(), text)) {
        None => RATIO,
        Some((Ok(ratio), _)) if (0.0..=1.0).contains(&ratio) => ratio,
        Some((_, text)) => {
            problems
                .push(format!("OTEL_TRACES_SAMPLER_ARG {text:?} is no number from 0 to 1: {RATIO} holds"));
            RATIO
        }
    };
    let kind = get("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_traceidratio".to_owned());
    let (parent_decides, root) = match kind.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, kind.as_str()),
    };
    let (parent_decides, root) = match root {
        "always_on" => (parent_decides, Sampler::AlwaysOn),
        "always_off" => (parent_decides, Sampler::AlwaysOff),
        "traceidratio" => (parent_decides, Sampler::TraceIdRatioBased(ratio)),
        _ => {
            problems.push(format!(
                "OTEL_TRACES_SAMPLER {kind:?} is not known: parentbased_traceidratio with {RATIO} holds"
            ));
            (true, Sampler::TraceIdRatioBased(RATIO))
        }
    };
    (if parent_decides { Sampler::ParentBased(Box::new(root)) } else { root }, parent_decides)
}

fn resource(
    get: &impl Fn(&str) -> Option<String>,
    build_ref: &str,
    problems: &mut Vec<String>,
) -> Vec<(String, String)> {
    let mut attributes = vec![("service.name".to_owned(), SERVICE.to_owned())];
    if !build_ref.is_empty() {
        attributes.push(("service.version".to_owned(), build_ref.to_owned()));
    }
    let mut set = |key: &str, value: String| match attributes.iter_mut().find(|(known, _)| known == key) {
        Some((_, old)) => *old = value,
        None => attributes.push((key.to_owned(), value)),
    };
    for pair in
        get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty())
    {
        let decoded = pair
            .split_once('=')
            .and_then(|(key, value)| percent_decoded(key.trim()).zip(percent_decoded(value.trim())));
        match decoded {
            Some((key, value)) if !key.is_empty() => set(&key, value),
            _ => problems.push(format!(
                "OTEL_RESOURCE_ATTRIBUTES has {pair:?}, which is no percent-encoded key=value: left out"
            )),
        }
    }
    if let Some(name) = get("OTEL_SERVICE_NAME") {
        set("service.name", name);
    }
    attributes
}

/// The text behind `%2C` and its like; `None` if that is none.
fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            decoded.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(variables: [(&str, &str); N]) -> Settings {
        let lookup =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Settings::read(lookup, "v1")
    }

    fn endpoint(settings: &Settings) -> Option<&str> {
        match &settings.exporter {
            Exporter::Otlp(otlp) => Some(&otlp.endpoint),
            _ => None,
        }
    }

    #[test]
    fn nothing_set_exports_nothing() {
        let settings = read([]);
        assert_eq!(settings.exporter, Exporter::None);
        assert!(settings.parent_decides && settings.problems.is_empty());
        assert_eq!(format!("{:?}", settings.sampler), "ParentBased(TraceIdRatioBased(0.1))");
    }

    #[test]
    fn the_collector_is_found_by_the_usual_variables() {
        assert_eq!(endpoint(&read([("OTEL_TRACES_EXPORTER", "otlp")])), Some("http://localhost:4317"));
        assert_eq!(endpoint(&read([("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1")])), Some("http://c:1"));
        let both = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1"),
        ];
        assert_eq!(endpoint(&read(both)), Some("http://t:1"));
        let bare = [("OTEL_EXPORTER_OTLP_ENDPOINT", "c:1"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")];
        assert_eq!(endpoint(&read(bare)), Some("http://c:1"));
        assert_eq!(endpoint(&read([("OTEL_EXPORTER_OTLP_ENDPOINT", "c:1")])), Some("https://c:1"));
    }

    #[test]
    fn none_and_the_general_switch_turn_export_off() {
        let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1");
        assert_eq!(read([collector, ("OTEL_TRACES_EXPORTER", "none")]).exporter, Exporter::None);
        assert_eq!(read([collector, ("OTEL_SDK_DISABLED", "true")]).exporter, Exporter::None);
        assert_eq!(read([("OTEL_TRACES_EXPORTER", "console")]).exporter, Exporter::Console);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let settings = read([
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c"),
        ]);
        assert_eq!(settings.problems.len(), 4, "{:?}", settings.problems);
        assert_eq!(format!("{:?}", settings.sampler), "ParentBased(TraceIdRatioBased(0.1))");
    }

    #[test]
    fn samplers_go_by_their_standard_names() {
        let sampler = |kind| {
            let settings = read([("OTEL_TRACES_SAMPLER", kind), ("OTEL_TRACES_SAMPLER_ARG", "0.5")]);
            (format!("{:?}", settings.sampler), settings.parent_decides)
        };
        assert_eq!(sampler("always_on"), ("AlwaysOn".into(), false));
        assert_eq!(sampler("parentbased_always_off"), ("ParentBased(AlwaysOff)".into(), true));
        assert_eq!(sampler("traceidratio"), ("TraceIdRatioBased(0.5)".into(), false));
    }

    #[test]
    fn resource_attributes_are_percent_decoded() {
        let text = "team=a%2Cb%3Dc,caf%C3%A9=100%25,bad=%zz,cut=%4,latin=%E9";
        let settings = read([("OTEL_RESOURCE_ATTRIBUTES", text)]);
        let value = |key: &str| {
            settings.resource.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
        };
        assert_eq!((value("team"), value("café")), (Some("a,b=c"), Some("100%")));
        assert_eq!(settings.problems.len(), 3, "{:?}", settings.problems);
    }

    #[test]
    fn the_environment_overrides_the_service_name() {
        let pairs = |settings: Settings| settings.resource;
        let of =
            |text: [(&str, &str); 3]| text.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let settings =
            read([("OTEL_RESOURCE_ATTRIBUTES", "service.name=a, zone = z"), ("OTEL_SERVICE_NAME", "b")]);
        assert_eq!(pairs(settings), of([("service.name", "b"), ("service.version", "v1"), ("zone", "z")]));
    }
}
