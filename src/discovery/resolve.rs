//! Host names of the endpoints file: each address of a name is an endpoint.
//!
//! Lookups are calls of the system's resolver, which block; they run on threads of their own, a few at a time, and are
//! not waited for without end. A name that cannot be looked up keeps its last addresses. A name with addresses of both
//! families is asked for by those of IPv4: they are the same servers.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;

use super::hosts::{At, Hosts, NOWHERE};
use crate::pool::{EndpointId, EndpointSpec};

/// A lookup is not waited for longer than this.
const LOOKUP_LIMIT: Duration = Duration::from_secs(3);
/// Lookups at a time.
const LOOKUPS: usize = 16;
/// Addresses of one name that become endpoints.
const ADDRESSES: usize = 256;

/// Finds the addresses of a name. Blocks.
type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The addresses of names as last found.
pub(super) struct Resolver {
    lookup: Lookup,
    known: HashMap<Arc<str>, Known>,
    /// Names whose lookup has not come back.
    under_way: Arc<Mutex<HashSet<Arc<str>>>>,
}

/// A name.
#[derive(Debug, Default)]
struct Known {
    /// Addresses by the number of the endpoint that they are: one that stays keeps its number.
    places: Vec<Option<IpAddr>>,
    /// Why the last lookup failed.
    failure: Option<String>,
}

impl Resolver {
    /// By the system's resolver.
    pub(super) fn system() -> Self {
        Self::new(|name| {
            let found = (name, 0).to_socket_addrs()?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }

    pub(super) fn new(lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { lookup: Arc::new(lookup), known: HashMap::new(), under_way: Arc::default() }
    }

    /// Looks all of `names` up again, and forgets all others.
    pub(super) async fn refresh(&mut self, names: impl IntoIterator<Item = &Arc<str>>) {
        let names: HashSet<Arc<str>> = names.into_iter().cloned().collect();
        self.known.retain(|name, _| names.contains(name));
        let lookups = names.into_iter().map(|name| self.look_up(name)).collect::<Vec<_>>();
        let mut lookups = futures_util::stream::iter(lookups).buffer_unordered(LOOKUPS);
        while let Some((name, found)) = lookups.next().await {
            let known = self.known.entry(Arc::clone(&name)).or_default();
            match found {
                Ok(addresses) => known.take(&name, addresses),
                Err(error) => known.fail(&name, error),
            }
        }
    }

    fn look_up(
        &self,
        name: Arc<str>,
    ) -> impl Future<Output = (Arc<str>, Result<Vec<IpAddr>, String>)> + use<> {
        let (lookup, under_way) = (Arc::clone(&self.lookup), Arc::clone(&self.under_way));
        async move {
            if !under_way.lock().insert(Arc::clone(&name)) {
                return (name, Err("the lookup before has not come back".to_owned()));
            }
            let asked = Arc::clone(&name);
            let call = tokio::task::spawn_blocking(move || {
                let found = lookup(&asked);
                under_way.lock().remove(&asked);
                found
            });
            let found = match tokio::time::timeout(LOOKUP_LIMIT, call).await {
                Ok(Ok(found)) => found.map_err(|error| error.to_string()),
                Ok(Err(failed)) => Err(failed.to_string()),
                Err(_) => Err(format!("no answer within {LOOKUP_LIMIT:?}")),
            };
            (name, found)
        }
    }

    /// The endpoints, each name replaced by its addresses. The first is called like the entry, the others have a number
    /// behind the name.
    pub(super) fn resolved(&self, endpoints: &[EndpointSpec], hosts: &Hosts) -> Vec<EndpointSpec> {
        let mut taken: HashSet<EndpointId> = endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        let mut all = Vec::with_capacity(endpoints.len());
        for (position, endpoint) in endpoints.iter().enumerate() {
            let scraped = hosts.scraped.get(&position).map(|at| self.scraped(at));
            let Some(host) = hosts.serving.get(&position) else {
                let mut spec = endpoint.clone();
                spec.metrics_address.set_ip(scraped.unwrap_or(spec.metrics_address.ip()));
                all.push(spec);
                continue;
            };
            let places = self.known.get(host).map_or(&[][..], |known| &known.places);
            for (number, address) in places.iter().enumerate() {
                let Some(address) = *address else { continue };
                let id = match number {
                    0 => endpoint.id.clone(),
                    _ => free_id(&endpoint.id, number, &mut taken),
                };
                let mut spec = EndpointSpec { pod: id.name().into(), id, ..endpoint.clone() };
                spec.address = SocketAddr::new(address, endpoint.address.port());
                spec.metrics_address =
                    SocketAddr::new(scraped.unwrap_or(address), endpoint.metrics_address.port());
                all.push(spec);
            }
        }
        all
    }

    /// Where an endpoint is scraped that is not scraped where it serves.
    fn scraped(&self, at: &At) -> IpAddr {
        match at {
            At::Address(ip) => *ip,
            At::Host(name) => {
                let places = self.known.get(name).map_or(&[][..], |known| &known.places);
                places.iter().flatten().next().copied().unwrap_or(NOWHERE)
            }
        }
    }
}

/// `name-number`, or with more behind it if another entry is called so.
fn free_id(id: &EndpointId, number: usize, taken: &mut HashSet<EndpointId>) -> EndpointId {
    let mut name = format!("{}-{number}", id.name());
    loop {
        let id = EndpointId::new(id.namespace(), &name);
        if taken.insert(id.clone()) {
            return id;
        }
        name.push('x');
    }
}

impl Known {
    fn take(&mut self, name: &str, found: Vec<IpAddr>) {
        if found.is_empty() {
            return self.fail(name, "the name has no address".to_owned());
        }
        if self.failure.take().is_some() {
            tracing::info!(host = name, "host name of the endpoints file is found again");
        }
        let v4 = found.iter().any(IpAddr::is_ipv4);
        let mut wanted: Vec<IpAddr> = found.into_iter().filter(|address| address.is_ipv4() == v4).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.len() > ADDRESSES {
            tracing::warn!(
                host = name,
                addresses = wanted.len(),
                limit = ADDRESSES,
                "host name has too many addresses, the rest is left out"
            );
            wanted.truncate(ADDRESSES);
        }
        for place in &mut self.places {
            *place = place.filter(|address| wanted.contains(address));
        }
        for address in wanted {
            if self.places.contains(&Some(address)) {
                continue;
            }
            match self.places.iter_mut().find(|place| place.is_none()) {
                Some(free) => *free = Some(address),
                None => self.places.push(Some(address)),
            }
        }
        while self.places.last().is_some_and(Option::is_none) {
            self.places.pop();
        }
    }

    fn fail(&mut self, name: &str, error: String) {
        if self.failure.as_ref() != Some(&error) {
            let addresses = self.places.iter().flatten().count();
            tracing::warn!(
                host = name,
                error,
                addresses,
                "host name cannot be looked up, its last addresses stay"
            );
        }
        self.failure = Some(error);
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
