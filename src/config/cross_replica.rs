//! `dataLayer.crossReplica.redis`: the server over which replicas tell each other what they do.

use std::path::PathBuf;

use crate::document::{Fields, Level, Node, Problems};

/// Port of a server whose URL names none.
const PORT: u16 = 6379;
/// Number of the last database that a server can be asked for.
const LAST_DATABASE: u16 = 9999;
/// Longest prefix of keys, in bytes.
const LONGEST_PREFIX: usize = 200;
/// What keys begin with unless the document says otherwise.
const PREFIX: &str = "pointsman";

/// A server that speaks the protocol of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisServer {
    /// Where it is.
    pub url: RedisUrl,
    /// File whose first line is the password.
    pub password_file: Option<PathBuf>,
    /// What the names of all keys begin with.
    pub key_prefix: String,
    /// Authorities that its certificate comes from; `None` for those of the system.
    pub ca_file: Option<PathBuf>,
    /// Certificate and key that it is shown.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// `redis://[USER@]HOST[:PORT][/DATABASE]`, or `rediss://…` for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// TLS.
    pub tls: bool,
    /// User; `None` for the default one.
    pub user: Option<String>,
    /// Host name or IP address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Number of the database.
    pub database: u16,
}

impl RedisUrl {
    /// Reads one. An error never holds a password.
    fn read(text: &str) -> Result<Self, String> {
        let expected = "expected redis://[USER@]HOST[:PORT][/DATABASE], or rediss:// for TLS";
        let (scheme, rest) = text.split_once("://").ok_or_else(|| expected.to_owned())?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            other => return Err(format!("got the scheme {other:?}, {expected}")),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err("holds a password, expected it in the file that `passwordFile` names".to_owned());
        }
        if user.is_some_and(|user| user.is_empty() || user.contains(|c: char| c == '%' || c.is_whitespace()))
        {
            return Err("the user is empty or has signs that need an escape".to_owned());
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !port.contains(']') => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (host, port.ok_or("the port is no number from 1 to 65535")?)
            }
            _ => (place, PORT),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if host.is_empty()
            || host.contains(['[', ']', '?', '#', ' '])
            || (bare.is_none() && host.contains(':'))
        {
            return Err(format!("it has no host, {expected}"));
        }
        let database = if path.is_empty() { Some(0) } else { path.parse().ok() };
        let database = database.filter(|database| *database <= LAST_DATABASE);
        let database =
            database.ok_or_else(|| format!("the database is no number from 0 to {LAST_DATABASE}"))?;
        Ok(Self { tls, user: user.map(str::to_owned), host: host.to_owned(), port, database })
    }

    /// The URL as text.
    pub(super) fn text(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{user}{host}:{}/{}", self.port, self.database)
    }
}

impl RedisServer {
    pub(super) fn read(node: &Node, path: &str, problems: &mut Problems) -> Option<Self> {
        let mut fields = Fields::of(node, path, problems)?;
        if fields.get("url").is_none() {
            problems.error(fields.line(), fields.path("url"), "is required");
        }
        let url = fields.scalar("url", problems, RedisUrl::read);
        let mut file = |name, problems: &mut Problems| {
            fields.text(name, problems).filter(|path| !path.is_empty()).map(PathBuf::from)
        };
        let password_file = file("passwordFile", problems);
        let ca_file = file("caFile", problems);
        let (certificate, key) = (file("certFile", problems), file("keyFile", problems));
        let prefix = fields.text("keyPrefix", problems).unwrap_or(PREFIX);
        let (line, at) = (fields.line_of("keyPrefix"), fields.path("keyPrefix"));
        if prefix.is_empty() || prefix.len() > LONGEST_PREFIX || prefix.contains(['{', '}']) {
            let expected = format!("1 to {LONGEST_PREFIX} bytes without braces");
            problems.error(line, at, format!("got {prefix:?}, expected {expected}"));
        }
        if certificate.is_some() != key.is_some() {
            problems.error(fields.line(), path, "`certFile` and `keyFile` need each other");
        }
        if let Some(url) = &url {
            if !url.tls && (ca_file.is_some() || certificate.is_some()) {
                problems.error(
                    fields.line(),
                    path,
                    "`caFile` and `certFile` need a URL that begins with rediss://",
                );
            }
            if url.user.is_some() && password_file.is_none() {
                problems.error(fields.line_of("url"), fields.path("url"), "a user needs `passwordFile`");
            }
        }
        fields.finish(Level::Error, problems);
        Some(Self {
            url: url?,
            password_file,
            key_prefix: prefix.to_owned(),
            ca_file,
            identity: certificate.zip(key),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_user_host_port_and_database() {
        let url = |text: &str| RedisUrl::read(text).map(|url| (url.tls, url.text()));
        let good = |tls, text: &str| Ok((tls, text.to_owned()));
        assert_eq!(url("redis://cache"), good(false, "redis://cache:6379/0"));
        assert_eq!(url("rediss://epp@cache.ns.svc:6380/7"), good(true, "rediss://epp@cache.ns.svc:6380/7"));
        assert_eq!(url("redis://[::1]"), good(false, "redis://[::1]:6379/0"));
        assert_eq!(url("redis://[::1]:1/"), good(false, "redis://[::1]:1/0"));
        for wrong in [
            "",
            "cache",
            "http://cache",
            "redis://",
            "redis://:1",
            "redis://@cache",
            "redis://a b@c",
            "redis://::1",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
        assert!(url("redis://cache:0").unwrap_err().contains("port"));
        assert!(url("redis://cache/ten").unwrap_err().contains("database"));
        assert!(url("redis://cache?x").unwrap_err().contains("host"));
        let with_password = url("redis://epp:secret@cache").unwrap_err();
        assert!(
            with_password.contains("passwordFile") && !with_password.contains("secret"),
            "{with_password}"
        );
    }
}
