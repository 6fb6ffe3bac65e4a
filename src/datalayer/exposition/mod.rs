//! Reader of Prometheus text pages that looks only for the series somebody needs.
//!
//! A page is hopped through line by line; a line whose first bytes cannot begin a needed name is never tokenised. Bytes
//! come in pieces of any size and nothing but an unfinished line is kept, so memory does not grow with the page. One
//! bad line costs that line, never the page.
//!
//! Which of several matching rows counts: the one with the highest timestamp, and without timestamps the first. Rows
//! that differ only in the engine's replica label (data parallelism behind one port) count together: queue, running and
//! blocks add up, KV usage is averaged. Of LoRA rows the highest value counts, since the value is the time of the last
//! change. A type line changes nothing: an untyped series is a value.

mod page;
mod row;
mod rows;
mod slot;
mod wanted;

pub use page::{Page, PageReader, RowCounts};
pub use rows::each_row;
pub use wanted::{Figure, Figures, WantedSeries};

#[cfg(test)]
mod label_tests;
#[cfg(test)]
mod tests;
