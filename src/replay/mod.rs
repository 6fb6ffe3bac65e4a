//! `pointsman replay`: decisions of a capture, made again by the program's own code.
//!
//! - `scene`: the pool and its figures at a decision; `request`: a request made of its features
//! - `policy`: the profiles of a configuration, without their ports
//! - `play`: reads a capture and makes each decision again
//! - `check`: whether it is the same; `compare`: what another configuration would have chosen
//! - `report`, `html`: how that is shown

mod check;
mod compare;
mod html;
mod play;
mod policy;
mod report;
mod request;
mod scene;
#[cfg(test)]
mod tests;

pub use compare::{Comparison, Difference, EndpointShare};
pub use play::{Loader, Played, Side, play};
pub use policy::Policy;
pub use report::table;

/// The comparison as a page that needs nothing else. `other` names the other configuration.
pub fn html(played: &Played, other: &str) -> String {
    html::page(played, other)
}
