//! The proxy in front of a model server that splits requests: prefill on one server, decode on another, images on a
//! third.
//!
//! The core is pure: `Route` reads the headers, `Machine` takes events and gives
//! calls, `bodies` says what each call carries. The shell carries the calls out: `Proxy` takes
//! requests, `client` makes calls, `drive` runs the machine.

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
mod proxy;
mod rank;
mod readiness;
mod route;
mod serve;
mod settings;
mod spare;
mod target;
mod upstream;

pub use allow::Allowed;
pub use connector::{Connector, EncodeConnector, Stage};
pub use serve::{Sidecar, new_metrics};
pub use settings::{Limits, Moriio, OnPrefillFailure, PerStage, Settings};
pub use target::Target;
