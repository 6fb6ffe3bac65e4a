//! Where the requests of a window go. Pure.
//!
//! Requests with equal blocks are a unit. One that equals no other is a unit if it shares `min_shared` leading blocks
//! with another request of the window; else it is not placed. Units of several requests are placed before single ones,
//! and longer prompts before shorter ones. A unit goes to the endpoint that holds most of its leading blocks from units
//! placed before, if those are at least `min_shared` and the endpoint has less than its share of the window; else to the
//! one with the least of the window, then with fewer running requests, then first by id. Beyond `per_replica` requests a
//! unit goes on at the next one.

use std::collections::HashMap;
use std::hash::Hash;

use smallvec::SmallVec;

use crate::pool::EndpointId;
use crate::prefix::BlockHashes;

/// Endpoints of which it is kept that they hold a block of the window.
const MOST_HOLDERS: usize = 16;

/// What is spread evenly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Balance {
    /// Requests.
    Requests,
    /// Blocks of prompts, each once per endpoint.
    Blocks,
}

/// How requests are placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlacingRules {
    /// Most requests of a unit on one endpoint.
    pub(super) per_replica: usize,
    /// Leading blocks that make prompts alike; 0 if only equal ones are.
    pub(super) min_shared: usize,
    pub(super) balance: Balance,
}

impl PlacingRules {
    /// True if single blocks are compared, and not prompts alone.
    fn compares_blocks(&self) -> bool {
        self.min_shared > 0 || self.balance == Balance::Blocks
    }
}

/// A request of a window: its blocks, as far as they are compared.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// The last hash of each prompt: a hash stands for all blocks up to its own.
    whole: SmallVec<[u64; 2]>,
    /// Blocks of all prompts.
    blocks: u32,
    /// Hashes of the first prompt; empty where nobody compares them.
    leading: Box<[u64]>,
}

impl Member {
    /// A request with these blocks; `None` if it has none.
    pub(super) fn new(blocks: &BlockHashes, rules: &PlacingRules) -> Option<Self> {
        let hashes = blocks.hashes();
        let ends = blocks.ends();
        let whole: SmallVec<[u64; 2]> =
            ends.iter().filter_map(|end| hashes.get((*end as usize).checked_sub(1)?).copied()).collect();
        let first = ends.first().map_or(0, |end| *end as usize);
        let leading = if rules.compares_blocks() { hashes.get(..first).unwrap_or_default() } else { &[] };
        let count = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        (count > 0).then(|| Self { whole, blocks: count, leading: leading.into() })
    }

    /// Hashes that are compared one by one.
    pub(super) fn compared(&self) -> usize {
        self.leading.len()
    }

    /// From now on whole prompts alone are compared.
    pub(super) fn compare_whole(&mut self) {
        self.leading = Box::default();
    }

    /// Blocks of all its prompts.
    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }
}

/// An endpoint that requests may go to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replica<'a> {
    pub(super) id: &'a EndpointId,
    pub(super) running: u64,
}

/// Requests that are placed together: one of them, and the numbers of all.
struct Unit<'m> {
    member: &'m Member,
    numbers: Vec<usize>,
}

/// The replica of each member; `None` for one that is not placed.
pub(super) fn place(
    members: &[Option<Member>],
    replicas: &[Replica<'_>],
    rules: &PlacingRules,
) -> Vec<Option<usize>> {
    let mut placed = vec![None; members.len()];
    if replicas.is_empty() {
        return placed;
    }
    let units = units(members, rules);
    let amount = |unit: &Unit<'_>| match rules.balance {
        Balance::Requests => unit.numbers.len() as u64,
        Balance::Blocks => u64::from(unit.member.blocks),
    };
    let share = units.iter().map(amount).sum::<u64>().div_ceil(replicas.len() as u64);
    let mut window = Placement::new(replicas, rules, share);
    for unit in &units {
        let mut used = vec![false; replicas.len()];
        for part in unit.numbers.chunks(rules.per_replica) {
            let replica = window.choose(unit.member, &mut used);
            window.put(unit.member, part.len(), replica);
            for number in part {
                placed[*number] = Some(replica);
            }
        }
    }
    placed
}

/// Members by what makes them equal, in the order in which each came first.
fn grouped<'m, K: Hash + Eq>(
    members: &'m [Option<Member>],
    key: impl Fn(&'m Member) -> Option<K>,
) -> Vec<Unit<'m>> {
    let mut places: HashMap<K, usize> = HashMap::new();
    let mut units: Vec<Unit<'m>> = Vec::new();
    for (number, member) in members.iter().enumerate() {
        let Some(member) = member else { continue };
        let Some(key) = key(member) else { continue };
        let place = *places.entry(key).or_insert(units.len());
        match units.get_mut(place) {
            Some(unit) => unit.numbers.push(number),
            None => units.push(Unit { member, numbers: vec![number] }),
        }
    }
    units
}

/// The units in the order in which they are placed.
fn units<'m>(members: &'m [Option<Member>], rules: &PlacingRules) -> Vec<Unit<'m>> {
    let mut units = grouped(members, |member| Some((&member.whole, member.blocks)));
    let alike = |member: &Member| member.leading.get(rules.min_shared.checked_sub(1)?).copied();
    let families: HashMap<u64, usize> = grouped(members, alike)
        .into_iter()
        .filter_map(|family| Some((alike(family.member)?, family.numbers.len())))
        .collect();
    let shares = |unit: &Unit<'_>| {
        unit.numbers.len() > 1
            || alike(unit.member).is_some_and(|start| families.get(&start).is_some_and(|count| *count > 1))
    };
    units.retain(shares);
    // The sort keeps the order of equals, which is that of their arrival.
    units.sort_by_key(|unit| (unit.numbers.len() == 1, std::cmp::Reverse(unit.member.blocks)));
    units
}

/// What the endpoints have got of the window so far.
struct Placement<'a> {
    replicas: &'a [Replica<'a>],
    rules: &'a PlacingRules,
    /// An endpoint with so much has its share.
    share: u64,
    loads: Vec<u64>,
    /// Who holds the prompts up to a block.
    holders: HashMap<u64, SmallVec<[u32; 2]>>,
}

impl<'a> Placement<'a> {
    fn new(replicas: &'a [Replica<'a>], rules: &'a PlacingRules, share: u64) -> Self {
        Self { replicas, rules, share, loads: vec![0; replicas.len()], holders: HashMap::new() }
    }

    /// Leading blocks of the member that each replica holds.
    fn held(&self, member: &Member) -> Vec<usize> {
        let mut held = vec![0; self.replicas.len()];
        for (number, hash) in member.leading.iter().enumerate() {
            let Some(holders) = self.holders.get(hash) else { break };
            for replica in holders {
                held[*replica as usize] = number + 1;
            }
        }
        held
    }

    /// The replica for the next part of a unit. `used` are those that have a part of it, and is kept here.
    fn choose(&self, member: &Member, used: &mut [bool]) -> usize {
        let all = 0..self.replicas.len();
        let begins = used.iter().all(|used| !used);
        if used.iter().all(|used| *used) {
            used.fill(false);
        }
        let least = |replica: &usize| {
            let Replica { id, running } = self.replicas[*replica];
            (self.loads[*replica], running, id)
        };
        let held = if begins && self.rules.min_shared > 0 { self.held(member) } else { Vec::new() };
        let sharing = all
            .clone()
            .filter(|replica| held.get(*replica).is_some_and(|held| *held >= self.rules.min_shared))
            .filter(|replica| self.loads[*replica] < self.share)
            .min_by_key(|replica| (std::cmp::Reverse(held[*replica]), least(replica)));
        let chosen = sharing.or_else(|| all.filter(|replica| !used[*replica]).min_by_key(least)).unwrap_or(0);
        used[chosen] = true;
        chosen
    }

    /// A part of a unit goes to the replica.
    fn put(&mut self, member: &Member, requests: usize, replica: usize) {
        self.loads[replica] += match self.rules.balance {
            Balance::Requests => requests as u64,
            Balance::Blocks => {
                let held = self.held(member)[replica];
                u64::from(member.blocks).saturating_sub(held as u64)
            }
        };
        for hash in &member.leading {
            let holders = self.holders.entry(*hash).or_default();
            if holders.len() < MOST_HOLDERS && !holders.contains(&(replica as u32)) {
                holders.push(replica as u32);
            }
        }
    }
}
