//! Tests of loading, over a small catalogue of stand-in plugins.

mod any_text;
mod defaults;
mod fakes;
mod faults;
mod flow;
mod missing;
mod order;
mod ready_files;
mod stages;
mod trees;
