//! Requests that ask for a tunnel: upgrades and `CONNECT`.

use crate::request::Headers;

/// True if what follows these request headers is no body but the client's half of a tunnel, which has no end before the
/// tunnel ends.
///
/// That is `CONNECT`, with or without `:protocol`, and an HTTP/1.1 upgrade: proxies turn an extended `CONNECT` of
/// HTTP/2 into one. An upgrade to HTTP/2 is none, for its request has an ordinary body.
pub(super) fn is_asked_for(headers: &Headers) -> bool {
    if headers.get(":method").is_some_and(|method| method.eq_ignore_ascii_case(b"CONNECT")) {
        return true;
    }
    let Some(protocol) = headers.get("upgrade") else { return false };
    let upgrades = headers.iter().any(|(name, value)| {
        name.eq_ignore_ascii_case(b"connection")
            && value
                .split(|byte| *byte == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    upgrades && !protocol.trim_ascii().eq_ignore_ascii_case(b"h2c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_needs_both_of_its_headers() {
        let both = [("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")];
        assert!(is_asked_for(&Headers::from(both)));
        assert!(!is_asked_for(&Headers::from([("upgrade", "websocket")])));
        assert!(!is_asked_for(&Headers::from([("connection", "upgrade")])));
        assert!(!is_asked_for(&Headers::from([("upgrade", "websocket"), ("connection", "upgraded")])));
    }

    #[test]
    fn an_upgrade_to_http2_has_an_ordinary_body() {
        let headers = [("upgrade", "h2c"), ("connection", "Upgrade, HTTP2-Settings")];
        assert!(!is_asked_for(&Headers::from(headers)));
    }

    #[test]
    fn connect_is_a_tunnel_with_and_without_a_protocol() {
        assert!(is_asked_for(&Headers::from([(":method", "CONNECT")])));
        assert!(is_asked_for(&Headers::from([(":method", "CONNECT"), (":protocol", "websocket")])));
        assert!(!is_asked_for(&Headers::from([(":method", "POST"), (":path", "/v1/completions")])));
    }
}
