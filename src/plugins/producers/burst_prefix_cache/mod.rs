//! `burst-prefix-cache-producer` (alpha): places requests together that come together and share a prompt.
//!
//! Where many requests with one prompt come at once, such as the samples of one rollout, no endpoint holds the prompt
//! yet, and a scorer of caches sees nothing. Here a request with a prompt waits until its window of
//! `windowDurationMs` closes, and all requests of the window are placed at once (`placing.rs`). A placed request
//! matches in full on its endpoint, and not at all elsewhere. One that shares its prompt with no other matches
//! nowhere, and is left to the other scorers.
//!
//! The wait belongs to the stage before scheduling: a request that waits in flow control waits for its window at the
//! same time, and requests without a prompt wait for none. Prompts are compared by the blocks of estimated tokens, for
//! exact ones are not there yet. The endpoints are those that the first request of a window may go to when it is
//! scheduled.
//!
//! Use it, with `prefix-cache-scorer` and `prefixMatchInfoProducerName: burst-prefix-cache-producer`, where groups of
//! requests with the same prompt come at once. It costs each request with a prompt the rest of its window, and the
//! hashing of the prompt.

mod placing;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use smallvec::SmallVec;

use self::placing::{Balance, Member, PlacingRules};
use self::window::{Owner, Seat, Window};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::prefix::{BlockShape, PrefixMatch, block_hashes};
use crate::scheduling::{
    Call, Column, Finding, PrepareCall, PrepareError, PrepareLimits, Prepared, Preparer, Preparing, Produced,
    Producer,
};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("burst-prefix-cache-producer", Stability::Alpha, build).about(
    "Places requests together that come together and share a prompt.",
    "Use it, with prefix-cache-scorer, where groups of requests with the same prompt come at once, such as the samples \
     of a rollout. It costs each request with a prompt up to windowDurationMs, and the hashing of the prompt.",
);

/// Longest window, in milliseconds.
const LONGEST_WINDOW: i64 = 10_000;
/// Most blocks of a prompt where no number of tokens is given.
const MAX_BLOCKS: usize = 2048;
/// Time that a window may close late.
const GRACE: Duration = Duration::from_millis(300);
/// Time that requests whose clients leave may take in sum before windows are suspended: they are no sign of trouble.
const PATIENCE: Duration = Duration::from_mins(1);
/// Most requests that wait for windows at once.
const MOST_WAITING: usize = 1 << 16;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Length of a window in milliseconds, 1 to 10000.
    window_duration_ms: i64,
    /// Most requests with one prompt on one endpoint, at least 1; -1 is no limit.
    max_per_replica: i64,
    /// Tokens per block, at least 1.
    block_size_tokens: i64,
    /// Most tokens of a prompt that are compared, at least a block; 0 means 2048 blocks.
    max_prefix_tokens_to_match: i64,
    /// Leading blocks that prompts must share for their requests to be drawn together; 0 places equal prompts only.
    min_colocate_blocks: i64,
    /// Most requests of a window, at least 1; -1 is no limit. A request beyond it goes on without.
    max_batch_size: i64,
    /// What is spread evenly over the endpoints; empty means `requests`.
    balance_by: BalanceBy,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum BalanceBy {
    /// Requests.
    #[default]
    #[serde(alias = "")]
    Requests,
    /// Blocks of prompts that an endpoint does not hold yet.
    Tokens,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            window_duration_ms: 100,
            max_per_replica: -1,
            block_size_tokens: 64,
            max_prefix_tokens_to_match: 0,
            min_colocate_blocks: 0,
            max_batch_size: 1000,
            balance_by: BalanceBy::Requests,
        }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let plugin = Arc::new(Burst {
        window: window(&params)?,
        shape: shape(&params)?,
        most: limit("maxBatchSize", params.max_batch_size)?,
        rules: rules(&params)?,
        open: Mutex::new(None),
        owner: Arc::new(Owner),
        matches: cx.produces(),
    });
    let kept = Arc::clone(&plugin);
    let roles = Roles::default().state(move || {
        let open = kept.open.lock().as_ref().map_or(0, |window| window.len());
        json!({ "requests_in_the_last_window": open })
    });
    Ok(roles.producer(Arc::clone(&plugin) as _).preparer(plugin))
}

fn window(params: &Params) -> Result<Duration, BuildError> {
    let given = params.window_duration_ms;
    let fits = (1..=LONGEST_WINDOW).contains(&given);
    let message = || format!("is {given}; expected 1 to {LONGEST_WINDOW} milliseconds");
    u64::try_from(given)
        .ok()
        .filter(|_| fits)
        .map(Duration::from_millis)
        .ok_or_else(|| BuildError::at("windowDurationMs", message()))
}

fn shape(params: &Params) -> Result<BlockShape, BuildError> {
    let given = params.block_size_tokens;
    let block_size = u32::try_from(given)
        .ok()
        .filter(|size| *size > 0)
        .ok_or_else(|| BuildError::at("blockSizeTokens", format!("is {given}; expected at least 1 token")))?;
    // Sizes beyond any prompt are cut so that their bytes can still be counted.
    let block_size = block_size.min(u32::MAX / 4);
    let max_blocks = match params.max_prefix_tokens_to_match {
        0 => MAX_BLOCKS,
        tokens => usize::try_from(tokens).unwrap_or(0) / block_size as usize,
    };
    if max_blocks == 0 {
        let message = format!(
            "is {}; expected 0, or at least the {block_size} tokens of a block",
            params.max_prefix_tokens_to_match
        );
        return Err(BuildError::at("maxPrefixTokensToMatch", message));
    }
    Ok(BlockShape { block_size, max_blocks })
}

/// A number of requests; -1 is no limit.
fn limit(parameter: &'static str, given: i64) -> Result<usize, BuildError> {
    match given {
        -1 => Ok(usize::MAX),
        1.. => Ok(usize::try_from(given).unwrap_or(usize::MAX)),
        _ => {
            let message = format!("is {given}; expected at least 1 request, or -1 for no limit");
            Err(BuildError::at(parameter, message))
        }
    }
}

fn rules(params: &Params) -> Result<PlacingRules, BuildError> {
    let given = params.min_colocate_blocks;
    let min_shared = usize::try_from(given).map_err(|_| {
        BuildError::at("minColocateBlocks", format!("is {given}; expected at least 1 block, or 0 for none"))
    })?;
    let balance = match params.balance_by {
        BalanceBy::Requests => Balance::Requests,
        BalanceBy::Tokens => Balance::Blocks,
    };
    Ok(PlacingRules { per_replica: limit("maxPerReplica", params.max_per_replica)?, min_shared, balance })
}

#[derive(Debug)]
struct Burst {
    window: Duration,
    shape: BlockShape,
    /// Most requests of a window.
    most: usize,
    rules: PlacingRules,
    /// The last window, open or not.
    open: Mutex<Option<Arc<Window>>>,
    owner: Arc<Owner>,
    matches: Column<PrefixMatch>,
}

impl Burst {
    /// A place in the window that is open now; a new one opens if none is. `None` if it is full.
    fn join(&self, member: Member) -> Option<Seat> {
        let now = tokio::time::Instant::now();
        let mut open = self.open.lock();
        let window = match &*open {
            Some(window) if now < window.closes => Arc::clone(window),
            _ => {
                let window = Arc::new(Window::new(now + self.window));
                *open = Some(Arc::clone(&window));
                window
            }
        };
        Seat::take(window, &self.owner, member, self.most)
    }
}

impl Preparer for Burst {
    fn limits(&self) -> PrepareLimits {
        let concurrent = self.most.saturating_mul(2).min(MOST_WAITING);
        PrepareLimits { timeout: self.window + GRACE, patience: PATIENCE, concurrent }
    }

    fn prepare(&self, call: &PrepareCall<'_>) -> Option<Preparing> {
        if call.dry_run || call.inference.prompt.pieces.is_empty() {
            return None;
        }
        let blocks =
            block_hashes(call.target_model, call.inference, call.body, call.media_rules(), self.shape);
        let member = Member::new(&blocks, &self.rules)?;
        let Some(seat) = self.join(member) else {
            let message = format!("the window holds {} requests already", self.most);
            return Some(Box::pin(std::future::ready(Err(PrepareError::Refused(message)))));
        };
        let closes = seat.closes();
        Some(Box::pin(async move {
            tokio::time::sleep_until(closes).await;
            Ok(Prepared { finding: Some(Finding::new(seat)), ..Prepared::default() })
        }))
    }

    fn probe(&self) -> Preparing {
        Box::pin(std::future::ready(Ok(Prepared::default())))
    }
}

impl Producer for Burst {
    fn produce(&self, call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
        let candidates = call.candidates();
        let mine = |finding: &'_ Finding| finding.get::<Seat>().is_some_and(|seat| seat.is_of(&self.owner));
        let seat = call.request.findings.iter().find(|finding| mine(finding));
        let seat = seat.and_then(|finding| finding.get::<Seat>());
        let total = seat.map_or(0, Seat::blocks);
        let nothing = PrefixMatch { matched: 0, total, block_size: self.shape.block_size, cached: 0 };
        let mut cells = vec![nothing; candidates.len()];
        if let Some(placed) = seat.and_then(|seat| seat.placed(candidates, &self.rules))
            && let Some(slot) = candidates.iter().position(|endpoint| endpoint.incarnation() == placed)
        {
            (cells[slot].matched, cells[slot].cached) = (total, total);
        }
        Ok(SmallVec::from_iter([Produced::new(self.matches, cells)]))
    }
}
