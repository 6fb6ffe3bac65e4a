//! The interface for everybody who wants to know how scrapes end.

use std::time::Duration;

use super::exposition::Figures;
use super::{ScrapeError, Variant};
use crate::pool::Endpoint;

/// Hears about scrapes as they end. The scraping task calls the methods, so they must not block.
pub trait Observer: Send + Sync + 'static {
    /// A page was read: size of its body in bytes, and time from sending the request to the last figure.
    fn scraped(&self, _endpoint: &Endpoint, _bytes: usize, _took: Duration) {}

    /// A round ended without a whole page.
    fn poll_error(&self, _endpoint: &Endpoint, _error: &ScrapeError) {}

    /// A page lacked figures that the engine should have, or had malformed lines. Told when that changes and, while it
    /// lasts, now and then.
    fn extract_error(&self, _endpoint: &Endpoint, _missing: Figures, _malformed: u32) {}

    /// This form of the page is asked for from now on.
    fn adopted(&self, _endpoint: &Endpoint, _variant: Variant) {}

    /// No filtered form will do for now; the full page is asked for.
    fn refused(&self, _endpoint: &Endpoint) {}
}

/// Wants to know nothing.
impl Observer for () {}
