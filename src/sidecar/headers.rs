//! Which headers of a message the proxy forwards, and which belong to one connection.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, request};

use super::route;

/// Headers that belong to one connection even if the `Connection` header does not name them.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The most header names that are taken from one message's `Connection` headers.
const MOST_NAMED: usize = 64;

/// Returns the protocol that a request or a response asks to switch to (`Connection: upgrade` and `Upgrade: …`).
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let wants = names(headers).any(|name| name.eq_ignore_ascii_case("upgrade"));
    wants.then(|| headers.get(UPGRADE).cloned()).flatten()
}

fn names(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty()).take(MOST_NAMED)
}

/// Removes the headers that belong to the connection, except for those that ask for an upgrade.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let upgrade = upgrade(headers);
    let trailers = headers.get_all(TE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers")))
    });
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = names(headers).filter_map(|name| name.parse().ok()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(UPGRADE);
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Turns the head of a client's request into the head of a call to the engine. It removes the headers of the connection
/// and the routing headers. It sets `Host` to the host that the client named, and adds the client's address to
/// `X-Forwarded-For`.
pub(super) fn forward(head: &mut request::Parts, client: IpAddr) {
    for name in &route::ALL {
        head.headers.remove(name);
    }
    strip_hop_by_hop(&mut head.headers);
    if !head.headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    let before = head.headers.get_all(FORWARDED_FOR).iter();
    let mut value: Vec<u8> = before.flat_map(|value| [value.as_bytes(), b", "].concat()).collect();
    value.extend_from_slice(client.to_canonical().to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&value) {
        head.headers.insert(FORWARDED_FOR, value);
    }
}

/// Returns the headers of a call whose body is not the client's body. They lack the headers that describe the client's
/// body, such as `Content-Length`.
pub(super) fn for_another_body(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(CONTENT_LENGTH);
    headers.remove(http::header::EXPECT);
    headers.remove(http::header::TRAILER);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_belongs_to_a_connection_stays_there() {
        let mut headers = map(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("te", "trailers"), ("trailer", "x-sum"), ("accept", "*/*")]));
    }

    #[test]
    fn an_upgrade_goes_on() {
        let mut headers = map(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }

    #[test]
    fn the_host_and_the_clients_address_go_along_and_routing_headers_do_not() {
        let request =
            http::Request::get("http://model.example/v1/models").header("x-forwarded-for", "1.2.3.4");
        let (mut head, ()) = request.header("x-prefiller-host-port", "a:1").body(()).unwrap().into_parts();
        forward(&mut head, "::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(head.headers, map(&[("x-forwarded-for", "1.2.3.4, 10.0.0.1"), ("host", "model.example")]));
    }
}
