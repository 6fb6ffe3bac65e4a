//! The metrics page of a model server, in the size and shape of vLLM's.
//!
//! - `families`: which series there are, and where their values come from
//! - `template`: the unchanging text, compiled once and shared by all servers of a process
//! - `page`: a page, whole or filtered by sample names, from a template and the present values
//! - `http_stats`: the series that vLLM's HTTP layer adds
//! - `number`: numbers as Python prints them

mod cache_info;
mod families;
mod http_stats;
mod number;
mod page;
mod template;

pub(crate) use http_stats::{HttpStats, Served};
pub(crate) use page::{PageValues, filtered, whole};
pub(crate) use template::{PageShape, Template};

/// The content type of `prometheus_client`'s text format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests;
