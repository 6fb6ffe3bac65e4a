//! Questions to the index whose answers are compared with the engines.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::index::PreciseIndex;
use super::keys::PromptKeys;
use super::tiers::{PLACES, SENT};
use super::watch::Watch;
use crate::pool::Endpoint;
use crate::prefix::shard::BlockKey;

/// How many events of an engine the index has applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Events with blocks that were applied so far.
    pub heard: u64,
    /// Those of the events after which the engine may hold fewer blocks than before.
    pub lost: u64,
}

/// What the index knows about one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineRow {
    /// Tokens of a block; `None` if the engine has sent no event yet.
    pub block_size: Option<u32>,
    /// Blocks that the endpoint holds.
    pub blocks: usize,
    /// How many of its events were applied.
    pub marks: Marks,
}

impl PreciseIndex {
    /// How many events of this endpoint were applied; `None` if the pool does not have the endpoint.
    pub fn marks(&self, incarnation: u64) -> Option<Marks> {
        let engine = self.engine(incarnation)?;
        Some(Marks { heard: engine.heard.load(Relaxed), lost: engine.lost.load(Relaxed) })
    }

    /// What the index knows about this endpoint.
    pub fn row(&self, incarnation: u64) -> Option<EngineRow> {
        let engine = self.engine(incarnation)?;
        let size = engine.block_size.load(Relaxed);
        let marks = Marks { heard: engine.heard.load(Relaxed), lost: engine.lost.load(Relaxed) };
        let blocks = engine.state.lock().blocks.len();
        Some(EngineRow { block_size: (size > 0).then_some(size), blocks, marks })
    }

    /// Blocks from the beginning of the prompts that this endpoint's events contain, in any tier. Blocks of sent
    /// prompts that no event has confirmed do not count.
    pub fn told(&self, incarnation: u64, prompts: &[PromptKeys]) -> u32 {
        let Some(engine) = self.engine(incarnation) else { return 0 };
        let held = |key: &&u64| {
            let key = BlockKey(self.mix(**key));
            (0..SENT).any(|place| self.is_held(key, place, engine.slot))
        };
        prompts.iter().map(|prompt| prompt.0.iter().take_while(held).count() as u32).sum()
    }

    /// Numbers of blocks, each block counted once for every engine that holds it. The places are the accelerator's
    /// memory, the machine's memory, other places, and "sent and not confirmed".
    pub fn blocks_by_place(&self) -> [u64; PLACES] {
        std::array::from_fn(|place| self.by_place.get(place).map_or(0, |blocks| blocks.load(Relaxed)))
    }

    /// Watches what `endpoint` tells next behind the first `held` blocks of a prompt for `name`: these `ids` should
    /// follow.
    pub fn watch(
        &self,
        endpoint: &Endpoint,
        name: &str,
        keys: &PromptKeys,
        held: u32,
        ids: &[u32],
    ) -> Option<Arc<Watch>> {
        let engine = self.engine(endpoint.incarnation())?;
        let parent = match (held as usize).checked_sub(1) {
            None => self.keys.root(name),
            Some(last) => *keys.0.get(last)?,
        };
        let watch = Arc::new(Watch::new(parent, ids));
        engine.state.lock().watches.add(&watch).then_some(watch)
    }
}
