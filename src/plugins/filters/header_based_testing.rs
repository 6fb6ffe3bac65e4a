//! `header-based-testing-filter`: keeps the endpoints that a request names, for conformance tests.
//!
//! Header `test-epp-endpoint-selection` lists `ip`, `ip:port`, `[ipv6]` or `[ipv6]:port`, separated by commas. Without
//! it nothing is kept. Of several entries with one address the first that finds an endpoint counts; an address without
//! a port means its last endpoint. What is no address is skipped. Takes no parameters. Cost: entries times endpoints;
//! not for production.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::plugins::{PluginType, Roles, Stability};
use crate::pool::Subset;
use crate::scheduling::{Call, Filter, Mask};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("header-based-testing-filter", Stability::Beta, |cx| {
    cx.no_params();
    Ok(Roles::default().filter(Arc::new(HeaderBasedTesting)))
})
.about(
    "Keeps the endpoints that the header test-epp-endpoint-selection names.",
    "Use it for conformance tests alone, because any client can choose its endpoint with it. It costs a \
         comparison for each entry of the header and each endpoint.",
);

const HEADER: &str = "test-epp-endpoint-selection";

#[derive(Debug)]
struct HeaderBasedTesting;

impl Filter for HeaderBasedTesting {
    fn narrow(&self, call: &Call<'_>, keep: &mut Mask) {
        let header = call.request.headers.text(HEADER).unwrap_or_default();
        let mut addresses: SmallVec<[IpAddr; 4]> = SmallVec::new();
        let mut chosen: SmallVec<[usize; 4]> = SmallVec::new();
        for entry in header.split(',') {
            let Ok(entry) = Subset::parse([entry]) else { continue };
            let found = (0..call.len())
                .rev()
                .filter_map(|position| Some((position, call.endpoint(position)?)))
                .find(|(_, endpoint)| entry.admits(endpoint));
            if let Some((position, endpoint)) = found
                && !addresses.contains(&endpoint.spec().address.ip())
            {
                addresses.push(endpoint.spec().address.ip());
                chosen.push(position);
            }
        }
        keep.retain(0..call.len(), |position| chosen.contains(&position));
    }
}
