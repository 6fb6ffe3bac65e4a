//! `session-id-producer`: takes the id of a request's session from a header or a cookie.
//!
//! `session-affinity-scorer` and `session-affinity-filter` read it where one of their sources is an `attribute`. The
//! name of a cookie counts in its letter case, and its value is taken as it stands.
//!
//! Use it where clients carry their session in a cookie. It costs one look-up of a header for each request.

use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::{SmallVec, smallvec};

use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::request::Headers;
use crate::scheduling::{Call, Column, Produced, Producer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("session-id-producer", Stability::Beta, build)
    .about(
        "Takes the id of a request's session from a header or a cookie.",
        "Use it, with session-affinity-scorer or -filter, where clients carry their session in a cookie. It costs one \
         look-up of a header for each request.",
    )
    .with_example("cookieName: session");

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Header that holds the id; this or `cookieName`.
    header_name: String,
    /// Cookie that holds the id; this or `headerName`.
    cookie_name: String,
}

/// The id of a request's session: one cell in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionIdData(pub Bytes);

#[derive(Debug)]
enum Source {
    /// Lower case.
    Header(String),
    Cookie(String),
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let Params { header_name, cookie_name } = cx.params()?;
    let source = match (header_name.trim(), cookie_name.trim()) {
        ("", "") => return Err(BuildError::at("headerName", "or `cookieName` is required")),
        (header, "") => Source::Header(header.to_ascii_lowercase()),
        ("", cookie) => Source::Cookie(cookie.to_owned()),
        _ => return Err(BuildError::at("cookieName", "stands beside `headerName`; give one of them")),
    };
    Ok(Roles::default().producer(Arc::new(SessionId { column: cx.produces(), source })))
}

#[derive(Debug)]
struct SessionId {
    column: Column<SessionIdData>,
    source: Source,
}

impl Source {
    fn find(&self, headers: &Headers) -> Option<Bytes> {
        match self {
            Self::Header(name) => headers.get(name).cloned(),
            Self::Cookie(name) => {
                let all = headers.get("cookie")?;
                let cookie = |pair: &[u8]| {
                    let rest = pair.trim_ascii().strip_prefix(name.as_bytes())?;
                    Some(all.slice_ref(rest.strip_prefix(b"=")?))
                };
                all.split(|byte| *byte == b';').find_map(cookie)
            }
        }
    }
}

impl Producer for SessionId {
    fn produce(&self, call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
        let id = self.source.find(call.request.headers).filter(|id| !id.trim_ascii().is_empty());
        Ok(match id {
            Some(id) => smallvec![Produced::new(self.column, vec![SessionIdData(id)])],
            None => SmallVec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::fixture::{Fleet, Request, request};
    use crate::scheduling::Columns;

    fn id(params: Value, request: &Request) -> Option<String> {
        let mut fleet = Fleet::new([]);
        let built = fleet.build(&TYPE, Some(params)).unwrap();
        let mut columns = Columns::new();
        for produced in fleet.call(request, &Columns::new(), |call| {
            built.roles.producer.as_ref().unwrap().produce(call).unwrap()
        }) {
            columns.insert(produced);
        }
        let [SessionIdData(id)] = columns.slice(fleet.column("session-id-producer"))? else { return None };
        Some(String::from_utf8(id.to_vec()).unwrap())
    }

    #[test]
    fn the_id_comes_from_the_header_or_the_cookie_of_that_name() {
        let header = || json!({"headerName": "X-Session"});
        assert_eq!(id(header(), &request("m").header("x-session", "s1")).as_deref(), Some("s1"));
        assert_eq!(id(header(), &request("m").header("x-session", " ")), None);
        assert_eq!(id(header(), &request("m")), None);
        for (cookie, expected) in [
            ("sid=s1", Some("s1")),
            ("a=b; sid=s=2; c", Some("s=2")),
            ("SID=s1; xsid=s2; sid", None),
            ("sid=\"q\"", Some("\"q\"")),
            ("sid=", None),
            ("", None),
        ] {
            let request = request("m").header("cookie", cookie);
            assert_eq!(id(json!({"CookieName": "sid"}), &request).as_deref(), expected, "{cookie}");
        }
    }

    #[test]
    fn one_of_the_two_sources_is_required() {
        for (params, path) in
            [(json!({}), "headerName"), (json!({"headerName": "a", "cookieName": "b"}), "cookieName")]
        {
            assert_eq!(Fleet::new([]).build(&TYPE, Some(params)).unwrap_err().path, path);
        }
    }
}
