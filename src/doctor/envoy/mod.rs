//! Finds settings of Envoy that break long prompts, long answers, or requests without a picker.

mod facts;
mod rules;
#[cfg(test)]
mod tests;

pub use facts::{EnvoyFacts, RouteFacts, SideFacts};
pub use rules::{RULES, UNREACHABLE, findings};
