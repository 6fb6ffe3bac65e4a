//! The state of the peers, as they report it. The code is pure: messages come in, and sums over all peers come out.
//!
//! Each link holds the state of one peer, and a total is always computed as the sum over the present links. No total is
//! changed by adding or subtracting, so a total can neither become negative nor keep a part of a peer that is gone.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::own::EndpointKey;
use super::wire::{AssignmentRow, BandRow, EndpointRow, ServiceRow, ShareRow, Update};
use crate::flow::{Queued, Rivals};
use crate::pool::{EndpointId, MOST_REQUESTS, Share};
use crate::prefix::BlockHashes;

/// The most endpoints of one peer.
const ENDPOINTS: usize = 65_536;
/// The longest name in bytes, which is twice what Kubernetes allows.
const NAME_BYTES: usize = 512;
/// The most indexes of one peer.
const INDEXES: usize = 64;
/// The most bands of one peer.
const BANDS: usize = 4096;
/// The most programs of one peer.
const PROGRAMS: usize = 32_768;
/// The most peers without a link whose totals are kept for the time when they connect again.
const ENDED: usize = 8;
/// The largest number of tokens in flight that is accepted.
const MOST_TOKENS: u64 = 1 << 50;

/// The number of one connection to a peer. The caller chooses the number and never reuses it.
pub(super) type LinkId = u64;

/// Why the messages of a link cannot be applied any further. The link has to end, and a new one may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The stream skipped a message.
    Lost,
    /// The address leads to this process.
    Itself,
    /// Another link leads to the same peer already.
    Known,
    /// A message has content that no correct peer sends.
    Malformed(&'static str),
    /// A message of a version that is not spoken any more.
    Version,
}

impl Fault {
    /// What it means, for people.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Lost => "a message is missing",
            Self::Itself => "it is this process",
            Self::Known => "the same peer is heard over another address",
            Self::Malformed(what) => what,
            Self::Version => "it speaks version 0 of the protocol, and this replica version 1 and later",
        }
    }

    /// The reason as metrics name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Itself => "itself",
            Self::Known => "known",
            Self::Malformed(_) => "malformed",
            Self::Version => "version",
        }
    }
}

/// An assignment that a peer reported: a request that the peer has sent to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// The name of the prefix index.
    pub(super) index: String,
    /// The endpoint that got the request.
    pub(super) endpoint: EndpointKey,
    /// The hashes of the request's blocks.
    pub(super) blocks: BlockHashes,
}

/// The changes that a message causes.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// The endpoints whose totals changed, each with the number of requests that were sent there since the last
    /// message.
    pub(super) endpoints: BTreeMap<EndpointKey, u64>,
    /// The assignments in the message.
    pub(super) heard: Vec<Heard>,
    /// The number of assignments that name an endpoint or an index which the peer has not described.
    pub(super) unknown: u64,
    /// True if the waiting requests of the peers changed.
    pub(super) waiting: bool,
    /// The programs that peers have served, each with the weighed tokens since the peer's last message.
    pub(super) services: Vec<(Arc<str>, u64)>,
    /// Flows of which peers have released requests, with their number since the last word.
    pub(super) turns: Vec<(Arc<str>, u64)>,
}

/// Totals by fairness id that only grow.
#[derive(Debug, Default)]
struct Totals(HashMap<Arc<str>, u64>);

impl Totals {
    /// Takes a total; what came since the last one, if anything. What came before the first word of a peer (`complete`
    /// is false) is no news.
    fn take(&mut self, row: ServiceRow, complete: bool) -> Result<Option<(Arc<str>, u64)>, Fault> {
        if row.fairness_id.len() > NAME_BYTES {
            return Err(Fault::Malformed("a fairness id is too long"));
        }
        let id: Arc<str> = row.fairness_id.into();
        if self.0.len() >= PROGRAMS && !self.0.contains_key(&id) {
            // Whoever tells of so many has forgotten the first ones.
            self.0.clear();
        }
        let before = self.0.insert(Arc::clone(&id), row.tokens);
        let known = before.or_else(|| complete.then_some(0));
        // A total that fell has begun anew.
        let since = known.map_or(0, |before| row.tokens.checked_sub(before).unwrap_or(row.tokens));
        Ok((since > 0).then(|| (id, since.min(MOST_TOKENS))))
    }
}

/// The state of one peer, as the peer reports it.
#[derive(Debug, Default)]
pub(super) struct PeerState {
    epoch: Option<u64>,
    sequence: u64,
    /// The name of the peer, for people.
    pub(super) name: String,
    /// True once the peer has reported everything that it knew when the link began.
    pub(super) complete: bool,
    indexes: Vec<String>,
    endpoints: HashMap<u32, EndpointKey>,
    shares: HashMap<EndpointKey, Share>,
    waiting: Vec<BandRow>,
    /// Weighed tokens by program.
    services: Totals,
    /// Released requests by flow.
    turns: Totals,
}

impl PeerState {
    /// The number of the peer's life; `None` before its first message.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// The number of messages so far.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The number of endpoints that the peer has named.
    pub(super) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// The number of requests that the peer has in flight.
    pub(super) fn requests(&self) -> u64 {
        self.shares.values().map(|share| share.requests).fold(0, u64::saturating_add)
    }
}

/// The state of all peers.
#[derive(Debug)]
pub(super) struct Fleet {
    /// The number of this process's life.
    own: u64,
    links: BTreeMap<LinkId, PeerState>,
    /// What peers whose links have ended had served and released, by the number of their lives, the one that ended last at
    /// the end.
    ended: VecDeque<(u64, [Totals; 2])>,
}

impl Fleet {
    /// Makes a fleet without peers. `own` is the number of this process's life.
    pub(super) fn new(own: u64) -> Self {
        Self { own, links: BTreeMap::new(), ended: VecDeque::new() }
    }

    /// The state of each peer, by link.
    pub(super) fn links(&self) -> &BTreeMap<LinkId, PeerState> {
        &self.links
    }

    /// The requests and tokens that all peers together have in flight at an endpoint.
    pub(super) fn total(&self, endpoint: &EndpointKey) -> Share {
        let shares = self.links.values().filter_map(|peer| peer.shares.get(endpoint));
        shares.fold(Share::default(), |sum, share| Share {
            requests: sum.requests.saturating_add(share.requests),
            tokens: sum.tokens.saturating_add(share.tokens),
            dispatched: sum.dispatched.saturating_add(share.dispatched),
        })
    }

    /// The requests that wait at all peers together, by priority.
    pub(super) fn waiting(&self) -> BTreeMap<i32, Queued> {
        let mut sums: BTreeMap<i32, Queued> = BTreeMap::new();
        for row in self.links.values().flat_map(|peer| &peer.waiting) {
            let sum = sums.entry(row.priority).or_default();
            let BandRow { requests, bytes, tokens, .. } = *row;
            *sum = sum.plus(Queued { requests, bytes, tokens });
        }
        sums
    }

    /// The peers that release into the pool, and the number of them that come before this replica, which has sent
    /// `sent` requests. Replicas with the same state compute the same order.
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

    /// Applies a message of `link`. A message that was applied before changes nothing. After a fault the caller must
    /// call [`Fleet::end`].
    pub(super) fn apply(&mut self, link: LinkId, update: Update, effects: &mut Effects) -> Result<(), Fault> {
        if update.version == 0 {
            return Err(Fault::Version);
        }
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
            [peer.services, peer.turns] = self.ended.remove(at).map(|(_, totals)| totals).unwrap_or_default();
        }
        if update.snapshot {
            peer.begin(&update, effects)?;
        }
        // The removed endpoints come first, because an endpoint that went and came back has a new number and the same
        // name.
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
            effects.services.extend(peer.services.take(row, peer.complete)?);
        }
        for row in update.turns {
            effects.turns.extend(peer.turns.take(row, peer.complete)?);
        }
        for row in update.assignments {
            peer.hear(row, effects);
        }
        peer.complete |= !update.more;
        Ok(())
    }

    /// Removes a link whose connection ended, and with it the share of its peer.
    pub(super) fn end(&mut self, link: LinkId, effects: &mut Effects) {
        if let Some(peer) = self.links.remove(&link) {
            effects.waiting |= !peer.waiting.is_empty();
            let has_totals = !peer.services.0.is_empty() || !peer.turns.0.is_empty();
            if let Some(epoch) = peer.epoch.filter(|_| has_totals) {
                if self.ended.len() >= ENDED {
                    self.ended.pop_front();
                }
                self.ended.push_back((epoch, [peer.services, peer.turns]));
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
        // Requests that were sent before the first message about an endpoint are not new.
        let sent = before.map_or(0, |before| share.dispatched.saturating_sub(before.dispatched));
        let sum = effects.endpoints.entry(key.clone()).or_default();
        *sum = sum.saturating_add(sent.min(MOST_REQUESTS));
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
