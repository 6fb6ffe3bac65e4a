//! The door of the admin pages: who asks, and whether they may.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::transport::ClientAddress;

/// Somebody who asks for a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Bearer token, if one was sent.
    pub token: Option<String>,
    /// Path, without query.
    pub path: String,
    /// Method in lower case, which is how access rules of Kubernetes name it.
    pub verb: String,
    /// Address that the request came from, if it is known.
    pub address: Option<IpAddr>,
}

/// The answer to a caller of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessVerdict {
    /// Come in.
    Allowed,
    /// The caller brings no token, or one that the API server does not know.
    Unauthenticated,
    /// You are known, and may not.
    Denied,
    /// Nobody could be asked, for this reason.
    Unavailable(String),
}

impl AccessVerdict {
    /// All names.
    pub const NAMES: [&'static str; 4] = ["allowed", "unauthenticated", "denied", "unavailable"];

    /// Name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// A verdict that takes its time.
pub type Answer<'a> = Pin<Box<dyn Future<Output = AccessVerdict> + Send + 'a>>;

/// Decides who may see the pages.
pub trait Access: Send + Sync {
    /// May `caller` come in?
    fn check(&self, caller: Caller) -> Answer<'_>;
}

/// Lets through who may come in. The answers are the reference's: 401, 403, and 500 while nobody can be asked.
pub(super) async fn guard(State(access): State<Arc<dyn Access>>, request: Request, next: Next) -> Response {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|text| text.split_once(' ')).and_then(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
    });
    let caller = Caller {
        token: token.map(str::to_owned),
        path: request.uri().path().to_owned(),
        verb: request.method().as_str().to_ascii_lowercase(),
        address: request.extensions().get::<ClientAddress>().map(|client| client.0.ip()),
    };
    let path = caller.path.clone();
    match access.check(caller).await {
        AccessVerdict::Allowed => next.run(request).await,
        AccessVerdict::Unauthenticated => {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, challenge, "a bearer token of the cluster is needed\n").into_response()
        }
        AccessVerdict::Denied => {
            let message = format!("the token's user may not get the non-resource URL {path}\n");
            (StatusCode::FORBIDDEN, message).into_response()
        }
        AccessVerdict::Unavailable(error) => {
            let message = format!("the token could not be checked: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, message).into_response()
        }
    }
}
