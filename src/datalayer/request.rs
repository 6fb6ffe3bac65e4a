//! The bytes of a scrape request, and where a redirect leads. Pure.

use super::Variant;
use super::exposition::WantedSeries;

/// Query that asks for the needed names only.
pub(super) fn filter_query(wanted: &WantedSeries) -> String {
    // Brackets are percent-encoded, as RFC 3986 wants them.
    wanted.names().map(|name| format!("name%5B%5D={name}")).collect::<Vec<_>>().join("&")
}

/// Path and query of a form of the page whose configured path is `path`.
pub(super) fn target(path: &str, variant: Variant, filter: &str) -> String {
    let (plain, query) = path.split_once('?').map_or((path, None), |(plain, query)| (plain, Some(query)));
    let slash = if variant == Variant::FilteredSlash && !plain.ends_with('/') { "/" } else { "" };
    match (variant, query) {
        (Variant::Full, _) => path.to_owned(),
        (_, None) => format!("{plain}{slash}?{filter}"),
        (_, Some(query)) => format!("{plain}{slash}?{query}&{filter}"),
    }
}

/// A GET request without a body. No `accept` and no `accept-encoding`: the plain text format is what servers send
/// unasked, and compressing costs them more than it saves here.
pub(super) fn get(target: &str, host: &str, into: &mut Vec<u8>) {
    into.clear();
    for part in ["GET ", target, " HTTP/1.1\r\nhost: ", host, "\r\nuser-agent: pointsman\r\n\r\n"] {
        into.extend_from_slice(part.as_bytes());
    }
}

/// Path and query that `location` names, seen from `current` on `scheme://host`; `None` if it leads to another server
/// or is no address.
pub(super) fn redirected(location: &str, scheme: &str, host: &str, current: &str) -> Option<String> {
    let location = location.split('#').next().unwrap_or_default();
    if location.is_empty() || location.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) {
        return None;
    }
    let after_scheme = match location.split_once("://") {
        Some((other, rest)) if !other.contains(['/', '?']) => {
            Some(rest).filter(|_| other.eq_ignore_ascii_case(scheme))?
        }
        _ => match location.strip_prefix("//") {
            Some(rest) => rest,
            None if location.starts_with('/') => return Some(location.to_owned()),
            None => {
                let path = current.split('?').next().unwrap_or_default();
                let folder = &path[..=path.rfind('/')?];
                return Some(format!("{folder}{location}"));
            }
        },
    };
    let end = after_scheme.find(['/', '?']).unwrap_or(after_scheme.len());
    let (authority, rest) = after_scheme.split_at(end);
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let same = authority.eq_ignore_ascii_case(host)
        || host.strip_suffix(default_port).is_some_and(|bare| authority.eq_ignore_ascii_case(bare));
    same.then(|| if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datalayer::exposition::Figures;
    use crate::datalayer::{EngineSpecs, MetricSpec};

    #[test]
    fn forms_differ_in_slash_and_query() {
        assert_eq!(target("/metrics", Variant::Full, "f"), "/metrics");
        assert_eq!(target("/metrics", Variant::Filtered, "f"), "/metrics?f");
        assert_eq!(target("/metrics", Variant::FilteredSlash, "f"), "/metrics/?f");
        assert_eq!(target("/m/?a=b", Variant::FilteredSlash, "f"), "/m/?a=b&f");
        assert_eq!(target("/m?a=b", Variant::Full, "f"), "/m?a=b");
    }

    #[test]
    fn all_names_go_into_the_filter() {
        let spec = |name| Some(MetricSpec::named(name));
        let specs = EngineSpecs { waiting: spec("a:w"), running: spec("b"), ..EngineSpecs::default() };
        assert_eq!(filter_query(&WantedSeries::new(&specs, Figures::ALL)), "name%5B%5D=a:w&name%5B%5D=b");
    }

    #[test]
    fn a_request_is_a_plain_get() {
        let mut bytes = vec![1];
        get("/metrics", "10.0.0.1:8000", &mut bytes);
        let text = "GET /metrics HTTP/1.1\r\nhost: 10.0.0.1:8000\r\nuser-agent: pointsman\r\n\r\n";
        assert_eq!(bytes, text.as_bytes());
    }

    #[test]
    fn redirects_stay_on_the_server() {
        let go = |location| redirected(location, "http", "10.0.0.1:80", "/a/metrics?x=y");
        assert_eq!(go("/metrics/").as_deref(), Some("/metrics/"));
        assert_eq!(go("http://10.0.0.1:80/m?q#f").as_deref(), Some("/m?q"));
        assert_eq!(go("HTTP://10.0.0.1").as_deref(), Some("/"));
        assert_eq!(go("//10.0.0.1/m").as_deref(), Some("/m"));
        assert_eq!(go("other").as_deref(), Some("/a/other"));
        for elsewhere in [
            "https://10.0.0.1/m",
            "http://10.0.0.2/m",
            "//evil/m",
            "http://10.0.0.1@evil/",
            "",
            "/a b",
            "/a\r\n",
        ] {
            assert_eq!(go(elsewhere), None, "{elsewhere}");
        }
    }
}
