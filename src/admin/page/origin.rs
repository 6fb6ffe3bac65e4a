//! Who may reach the page through a browser: nobody under a foreign name, and no script of another origin.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets through requests whose Host is an address or a name of this machine or of the cluster. A name of somebody else
/// that leads here is how a foreign page would read this one (DNS rebinding).
pub(crate) async fn own_host(request: Request, next: Next) -> Response {
    let named = host(request.headers(), request.uri());
    if named.is_some_and(|host| is_own(&host)) {
        return next.run(request).await;
    }
    let text = "this page answers under an IP address, localhost, a name without dots, or a name of a Service (….svc)\n";
    (StatusCode::MISDIRECTED_REQUEST, text).into_response()
}

/// Lets nothing change, and nothing be tried, for a page of another origin.
pub(crate) async fn same_origin(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if reads || !is_foreign(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "requests from pages of other origins are refused\n").into_response()
}

/// Host of a request, without its port, in lower case; `None` if it names none, or several.
fn host(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let text = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok()?,
        (None, _) => uri.authority()?.as_str(),
        (Some(_), Some(_)) => return None,
    };
    Some(without_port(text).to_ascii_lowercase())
}

fn without_port(text: &str) -> &str {
    if let Some(inside) = text.strip_prefix('[') {
        return inside.split(']').next().unwrap_or_default();
    }
    text.rsplit_once(':').map_or(text, |(host, _)| host)
}

fn is_own(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let labels = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    host.parse::<IpAddr>().is_ok()
        || labels(host)
            && (!host.contains('.')
                || [".localhost", ".svc", ".svc.cluster.local", ".pod.cluster.local"]
                    .iter()
                    .any(|end| host.ends_with(end)))
}

/// True if a browser says that a page of another origin sends this.
fn is_foreign(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let named = named.or_else(|| uri.authority().map(http::uri::Authority::as_str));
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    own.is_none() || own.map(str::to_ascii_lowercase) != named.map(str::to_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_of_the_machine_and_the_cluster_are_own_and_others_are_not() {
        for host in [
            "127.0.0.1",
            "::1",
            "10.1.2.3",
            "localhost",
            "a.localhost",
            "epp",
            "pool-epp.ns.svc",
            "pool-epp.ns.svc.cluster.local",
            "pool-epp.ns.svc.cluster.local.",
        ] {
            assert!(is_own(host), "{host}");
        }
        for host in [
            "",
            ".",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "a b",
            "svc.evil",
            "<x>",
        ] {
            assert!(!is_own(host), "{host}");
        }
        assert_eq!(without_port("[::1]:9090"), "::1");
        assert_eq!(without_port("a:9090"), "a");
    }

    #[test]
    fn several_hosts_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, "127.0.0.1:1".parse().unwrap());
        assert_eq!(host(&headers, &Uri::from_static("/")).as_deref(), Some("127.0.0.1"));
        headers.append(header::HOST, "evil.example".parse().unwrap());
        assert_eq!(host(&headers, &Uri::from_static("/")), None);
    }

    #[test]
    fn what_another_origin_sends_is_foreign() {
        let foreign = |pairs: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers
                    .insert(header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            is_foreign(&headers, &Uri::from_static("/"))
        };
        let host = ("host", "127.0.0.1:9090");
        assert!(!foreign(&[host]), "no browser");
        assert!(!foreign(&[host, ("origin", "http://127.0.0.1:9090"), ("sec-fetch-site", "same-origin")]));
        assert!(foreign(&[host, ("origin", "http://evil.example")]));
        assert!(foreign(&[host, ("origin", "null")]));
        assert!(foreign(&[host, ("origin", "http://127.0.0.1:8080")]));
        assert!(foreign(&[host, ("sec-fetch-site", "cross-site")]));
    }
}
