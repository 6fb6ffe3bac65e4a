//! Reading model servers: who is scraped when, over which connection, and what the pages say.
//!
//! The cores are pure: [`exposition`] (bytes to figures), [`Schedule`] (who is due), [`Adoption`] (asking for less) and
//! [`ResponseReader`] (HTTP/1.1). Around them, a worker drives one kept connection per endpoint from a single task,
//! with one timer and one read buffer.

mod adoption;
mod connection;
mod engines;
mod error;
pub mod exposition;
mod label_role;
mod layer;
mod metric_spec;
mod objects;
mod observer;
mod pages;
mod request;
mod response;
mod schedule;
mod settings;
mod source;
mod status;
mod target;
mod tls;
mod worker;
mod workers;

pub use adoption::{Adoption, Answer, AnswerVerdict, Change, Variant};
pub use engines::{DEFAULT_ENGINE, ENGINE_LABEL, EngineSpecs, EngineTable, LEGACY_ENGINE_LABEL, MetricSpec};
pub use error::ScrapeError;
pub use label_role::LabelRole;
pub use layer::DataLayer;
pub use objects::{ObjectKind, ObjectListener, ObjectReading, ObjectSource, ObjectView};
pub use observer::Observer;
pub use pages::{OnPageFault, PageExtractor, PageFault, PageReading, PageSource, Pages};
pub use response::{Event, Head, ResponseError, ResponseReader};
pub use schedule::{Pace, Schedule};
pub use settings::{SHORTEST_INTERVAL, Settings};
pub use source::SourceSpec;
pub use status::EndpointStatus;
pub use tls::TlsError;
