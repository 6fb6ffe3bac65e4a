//! `pointsman sidecar`: the proxy that stands in front of a model server and splits requests. The prompt of a request
//! is processed on a prefill server, its images and sounds on encode servers, and the answer is written by the local
//! model server, which is called the engine here.
//!
//! The core is pure. `Route` reads the routing headers. `Machine` takes events and returns the calls to make. `bodies`
//! writes the body of each call. The shell does the input and output: `Proxy` accepts requests, `client` sends calls,
//! and `drive` runs the machine of a request.

mod allow;
mod answer;
mod api;
mod bodies;
mod buffer;
mod client;
mod companion;
mod connect;
mod connector;
mod drive;
mod engines;
mod headers;
mod ids;
mod inbound;
mod legs;
mod machine;
mod media;
mod notices;
mod outbound;
mod outcome;
mod page;
mod proxy;
mod rank;
mod readiness;
mod route;
mod serve;
mod settings;
mod spare;
mod target;
mod upstream;
mod watch;

pub use allow::Allowed;
pub use connector::{Connector, EncodeConnector, Stage};
pub use serve::{Sidecar, new_metrics};
pub use settings::{Limits, Moriio, OnPrefillFailure, PerStage, Settings};
pub use target::Target;
pub use watch::{SidecarWatch, series_of_outcomes};
