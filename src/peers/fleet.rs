//! What the peers do, as they say it. Pure: messages come in, sums over all peers go out.
//!
//! Each link holds the state of one peer, and what counts is always the sum over the links that are there. Nothing is
//! ever added to or taken from a sum, so it can neither become negative nor keep a rest of what is gone.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::own::EndpointKey;
use super::wire::{AssignmentRow, BandRow, EndpointRow, ServiceRow, ShareRow, Update};
use crate::flow::{Queued, Rivals};
use crate::pool::{EndpointId, MOST_REQUESTS, Share};
use crate::prefix::BlockHashes;

/// Endpoints of one peer, at most.
const ENDPOINTS: usize = 65_536;
/// Bytes of a name, at most: twice what Kubernetes allows.
const NAME_BYTES: usize = 512;
/// Indexes of one peer, at most.
const INDEXES: usize = 64;
/// Bands of one peer, at most.
const BANDS: usize = 4096;
/// Programs of one peer, at most.
const PROGRAMS: usize = 32_768;
/// Peers whose links have ended and whose totals are kept, for when they are heard again.
const ENDED: usize = 8;
/// Tokens under way that are believed.
const MOST_TOKENS: u64 = 1 << 50;

/// One connection to a peer, numbered by whoever makes it and never again.
pub(super) type LinkId = u64;

/// Why the messages of a link cannot be followed any further. The link has to end; it may begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A message is missing.
    Lost,
    /// The peer is this process.
    Itself,
    /// Another link leads to the same peer.
    Known,
    /// A message holds what no peer sends.
    Malformed(&'static str),
}

impl Fault {
    /// The reason as metrics name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Itself => "itself",
            Self::Known => "known",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// A request that a peer has sent somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// Name of the index.
    pub(super) index: String,
    /// The endpoint.
    pub(super) endpoint: EndpointKey,
    /// Hashes of the blocks.
    pub(super) blocks: BlockHashes,
}

/// What a message changes.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Endpoints whose sums have changed, with the requests that were sent there since.
    pub(super) endpoints: BTreeMap<EndpointKey, u64>,
    /// Requests that were sent somewhere.
    pub(super) heard: Vec<Heard>,
    /// Assignments that name an endpoint or an index that the peer never told.
    pub(super) unknown: u64,
    /// What waits at peers has changed.
    pub(super) waiting: bool,
    /// Programs that peers have served, with the weighed tokens since their last word.
    pub(super) services: Vec<(Arc<str>, u64)>,
}

/// One peer, as it says.
#[derive(Debug, Default)]
pub(super) struct PeerState {
    epoch: Option<u64>,
    sequence: u64,
    /// Name, for people.
    pub(super) name: String,
    /// True once the peer has told everything that it knew at the beginning.
    pub(super) complete: bool,
    indexes: Vec<String>,
    endpoints: HashMap<u32, EndpointKey>,
    shares: HashMap<EndpointKey, Share>,
    waiting: Vec<BandRow>,
    /// Weighed tokens by program.
    services: HashMap<Arc<str>, u64>,
}

impl PeerState {
    /// Number of the peer's life; `None` before its first word.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// Messages so far.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Endpoints that the peer has named.
    pub(super) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// Requests that the peer has under way.
    pub(super) fn requests(&self) -> u64 {
        self.shares.values().map(|share| share.requests).fold(0, u64::saturating_add)
    }
}

/// All peers.
#[derive(Debug)]
pub(super) struct Fleet {
    /// Number of this process's life.
    own: u64,
    links: BTreeMap<LinkId, PeerState>,
    /// What peers whose links have ended had served, by the number of their lives, the one that ended last at the end.
    ended: VecDeque<(u64, HashMap<Arc<str>, u64>)>,
}

impl Fleet {
    /// No peers. `own` is the number of this process's life.
    pub(super) fn new(own: u64) -> Self {
        Self { own, links: BTreeMap::new(), ended: VecDeque::new() }
    }

    /// The peers by link.
    pub(super) fn links(&self) -> &BTreeMap<LinkId, PeerState> {
        &self.links
    }

    /// What all peers together have under way on an endpoint.
    pub(super) fn total(&self, endpoint: &EndpointKey) -> Share {
        let shares = self.links.values().filter_map(|peer| peer.shares.get(endpoint));
        shares.fold(Share::default(), |sum, share| Share {
            requests: sum.requests.saturating_add(share.requests),
            tokens: sum.tokens.saturating_add(share.tokens),
            dispatched: sum.dispatched.saturating_add(share.dispatched),
        })
    }

    /// What waits at all peers together, by priority.
    pub(super) fn waiting(&self) -> BTreeMap<i32, Queued> {
        let mut sums: BTreeMap<i32, Queued> = BTreeMap::new();
        for row in self.links.values().flat_map(|peer| &peer.waiting) {
            let sum = sums.entry(row.priority).or_default();
            let BandRow { requests, bytes, tokens, .. } = *row;
            *sum = sum.plus(Queued { requests, bytes, tokens });
        }
        sums
    }

    /// The peers that release into the pool, and how many of them come before this replica, which has sent `sent`
    /// requests. Replicas that know the same get the same line.
    pub(super) fn rivals(&self, sent: u64) -> Rivals {
        let known = self.links.values().filter(|peer| peer.epoch.is_some());
        let dispatched = known.clone().flat_map(|peer| peer.shares.values()).map(|share| share.dispatched);
        let sent = dispatched.fold(sent, u64::wrapping_add);
        let waiting = known.clone().filter(|peer| !peer.waiting.is_empty());
        let line = waiting.clone().count() as u64 + 1;
        let earlier = waiting.filter(|peer| peer.epoch < Some(self.own)).count() as u64;
        let before = (earlier + line - sent % line) % line;
        Rivals {
            others: u32::try_from(known.count()).unwrap_or(u32::MAX),
            before: u32::try_from(before).unwrap_or(u32::MAX),
            waiting: u32::try_from(line - 1).unwrap_or(u32::MAX),
            sent,
        }
    }

    /// Takes in a message of `link`. One that came before changes nothing. After a fault, [`Fleet::end`] must be
    /// called.
    pub(super) fn apply(&mut self, link: LinkId, update: Update, effects: &mut Effects) -> Result<(), Fault> {
        if update.epoch == self.own {
            return Err(Fault::Itself);
        }
        let mut others = self.links.iter().filter(|(other, _)| **other != link);
        if others.any(|(_, peer)| peer.epoch == Some(update.epoch)) {
            return Err(Fault::Known);
        }
        let peer = self.links.entry(link).or_default();
        if *peer.epoch.get_or_insert(update.epoch) != update.epoch {
            return Err(Fault::Malformed("another epoch"));
        }
        if update.sequence <= peer.sequence {
            return Ok(());
        }
        if update.sequence != peer.sequence + 1 || (peer.sequence == 0 && !update.snapshot) {
            return Err(Fault::Lost);
        }
        peer.sequence = update.sequence;
        if update.sequence == 1
            && let Some(at) = self.ended.iter().position(|(epoch, _)| *epoch == update.epoch)
        {
            peer.services = self.ended.remove(at).map(|(_, services)| services).unwrap_or_default();
        }
        if update.snapshot {
            peer.begin(&update, effects)?;
        }
        // First of all: an endpoint that went and came back has another number and the same name.
        for number in update.gone {
            if let Some(key) = peer.endpoints.remove(&number)
                && peer.shares.remove(&key).is_some()
            {
                effects.endpoints.entry(key).or_default();
            }
        }
        for row in update.endpoints {
            peer.name(&row)?;
        }
        for row in update.shares {
            peer.share(row, effects)?;
        }
        if let Some(waiting) = update.waiting {
            if waiting.bands.len() > BANDS {
                return Err(Fault::Malformed("too many bands"));
            }
            peer.waiting = waiting.bands;
            effects.waiting = true;
        }
        for row in update.services {
            peer.serve(row, effects)?;
        }
        for row in update.assignments {
            peer.hear(row, effects);
        }
        peer.complete |= !update.more;
        Ok(())
    }

    /// The link is gone, and with it the peer's share.
    pub(super) fn end(&mut self, link: LinkId, effects: &mut Effects) {
        if let Some(peer) = self.links.remove(&link) {
            effects.waiting |= !peer.waiting.is_empty();
            if let Some(epoch) = peer.epoch.filter(|_| !peer.services.is_empty()) {
                if self.ended.len() >= ENDED {
                    self.ended.pop_front();
                }
                self.ended.push_back((epoch, peer.services));
            }
            peer.shares.into_keys().for_each(|key| {
                effects.endpoints.entry(key).or_default();
            });
        }
    }
}

impl PeerState {
    fn begin(&mut self, update: &Update, effects: &mut Effects) -> Result<(), Fault> {
        if update.indexes.len() > INDEXES || update.indexes.iter().any(|name| name.len() > NAME_BYTES) {
            return Err(Fault::Malformed("too many indexes"));
        }
        self.endpoints.clear();
        effects.waiting |= !std::mem::take(&mut self.waiting).is_empty();
        for key in std::mem::take(&mut self.shares).into_keys() {
            effects.endpoints.entry(key).or_default();
        }
        self.indexes.clone_from(&update.indexes);
        self.name = update.name.chars().take(NAME_BYTES / 4).collect();
        Ok(())
    }

    fn name(&mut self, row: &EndpointRow) -> Result<(), Fault> {
        if row.namespace.len() > NAME_BYTES || row.name.len() > NAME_BYTES {
            return Err(Fault::Malformed("a name is too long"));
        }
        let address: SocketAddr =
            row.address.parse().map_err(|_| Fault::Malformed("an address is no IP:PORT"))?;
        if self.endpoints.len() >= ENDPOINTS && !self.endpoints.contains_key(&row.number) {
            return Err(Fault::Malformed("too many endpoints"));
        }
        self.endpoints.insert(row.number, (EndpointId::new(&row.namespace, &row.name), address));
        Ok(())
    }

    fn share(&mut self, row: ShareRow, effects: &mut Effects) -> Result<(), Fault> {
        let unnamed = Fault::Malformed("an endpoint has no name");
        let key = self.endpoints.get(&row.endpoint).ok_or(unnamed)?;
        let share = Share {
            requests: row.requests.min(MOST_REQUESTS),
            tokens: row.tokens.min(MOST_TOKENS),
            dispatched: row.dispatched,
        };
        if !self.shares.contains_key(key) && self.shares.len() >= ENDPOINTS {
            return Err(Fault::Malformed("too many endpoints"));
        }
        let before = self.shares.insert(key.clone(), share);
        // What was sent before the first word about an endpoint is no news.
        let sent = before.map_or(0, |before| share.dispatched.saturating_sub(before.dispatched));
        let sum = effects.endpoints.entry(key.clone()).or_default();
        *sum = sum.saturating_add(sent.min(MOST_REQUESTS));
        Ok(())
    }

    fn serve(&mut self, row: ServiceRow, effects: &mut Effects) -> Result<(), Fault> {
        if row.fairness_id.len() > NAME_BYTES {
            return Err(Fault::Malformed("a fairness id is too long"));
        }
        let id: Arc<str> = row.fairness_id.into();
        if self.services.len() >= PROGRAMS && !self.services.contains_key(&id) {
            // Whoever tells of so many has forgotten the first ones.
            self.services.clear();
        }
        let before = self.services.insert(Arc::clone(&id), row.tokens);
        // What was served before the first word of a peer is no news; a total that fell has begun anew.
        let known = before.or_else(|| self.complete.then_some(0));
        let since = known.map_or(0, |before| row.tokens.checked_sub(before).unwrap_or(row.tokens));
        if since > 0 {
            effects.services.push((id, since.min(MOST_TOKENS)));
        }
        Ok(())
    }

    fn hear(&self, row: AssignmentRow, effects: &mut Effects) {
        let index = self.indexes.get(row.index as usize);
        let (Some(index), Some(endpoint)) = (index, self.endpoints.get(&row.endpoint)) else {
            effects.unknown += 1;
            return;
        };
        let ends = if row.ends.is_empty() { vec![row.blocks.len() as u32] } else { row.ends };
        let blocks = BlockHashes::from_parts(row.block_size, row.blocks, ends);
        effects.heard.push(Heard { index: index.clone(), endpoint: endpoint.clone(), blocks });
    }
}
