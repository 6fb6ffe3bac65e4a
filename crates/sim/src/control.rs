//! The paths below `/sim/`: faults, pinned metrics, and the requests that the server received.

use bytes::Bytes;
use http::{Method, Response, StatusCode};

use super::faults::{FakeMetrics, Faults};
use super::query;
use super::reply::{self, Body};
use super::state::State;

/// Answers a control request.
pub(crate) fn handle(
    state: &State,
    method: &Method,
    path: &str,
    query: Option<&str>,
    body: &Bytes,
) -> Response<Body> {
    match (path, method.as_str()) {
        ("/sim/faults", "GET") => reply::object(&*state.faults().borrow()),
        ("/sim/faults", "POST" | "PUT") => {
            let present = state.faults().borrow().clone();
            match present.with(body) {
                Ok(faults) => {
                    state.set_faults(faults.clone());
                    reply::object(&faults)
                }
                Err(error) => reply::detail(StatusCode::BAD_REQUEST, &error),
            }
        }
        ("/sim/faults", "DELETE") => {
            state.set_faults(Faults::default());
            reply::object(&Faults::default())
        }
        ("/sim/fake-metrics", "GET") => reply::object(&state.fake_metrics()),
        ("/sim/fake-metrics", "POST" | "PUT") => match serde_json::from_slice::<Option<FakeMetrics>>(body) {
            Ok(fake) => {
                let fake = fake.unwrap_or_default();
                state.set_fake_metrics(fake);
                reply::object(&fake)
            }
            Err(error) => reply::detail(StatusCode::BAD_REQUEST, &error.to_string()),
        },
        ("/sim/fake-metrics", "DELETE") => {
            state.set_fake_metrics(FakeMetrics::default());
            reply::object(&FakeMetrics::default())
        }
        ("/sim/requests", "GET") => {
            let n = query::values(query.unwrap_or_default(), "n").last().map(|n| n.parse());
            match n.unwrap_or(Ok(usize::MAX)) {
                Ok(n) => {
                    let requests = state.received.lock().last(n);
                    reply::object(&requests)
                }
                Err(_) => reply::detail(StatusCode::BAD_REQUEST, "n is not a number"),
            }
        }
        ("/sim/requests", "DELETE") => {
            state.received.lock().clear();
            reply::json("[]")
        }
        ("/sim/stats", "GET") => reply::object(&state.stats()),
        ("/sim/faults" | "/sim/fake-metrics" | "/sim/requests" | "/sim/stats", _) => {
            reply::method_not_allowed()
        }
        _ => reply::not_found(),
    }
}
