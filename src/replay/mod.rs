//! `pointsman replay`: makes the decisions of a capture again with the program's own code.
//!
//! - `scene`: the pool and its figures at the time of a decision; `request`: a request made from its features
//! - `policy`: the profiles of a configuration, without ports
//! - `play`: reads a capture and makes each decision again
//! - `check`: whether the new decision equals the old one; `compare`: what another configuration would have chosen
//! - `report`, `html`: the results as text and as a page

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

/// Writes the comparison as one HTML page without other files. `other` is the name of the other configuration.
pub fn html(played: &Played, other: &str) -> String {
    html::page(played, other)
}
