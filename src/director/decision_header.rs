//! The response header that says in short why the request went where it went.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::decisions::Waited;
use crate::prefix::PrefixMatch;
use crate::scheduling::{Candidates, Decision};

/// Its name.
pub(super) const NAME: &str = "x-pointsman-decision";

/// `endpoint=ns/name; score=1.250; margin=0.210; matched-tokens=640; wait-ms=12`. `margin` is missing if the endpoint
/// was alone, `matched-tokens` if nobody counts them.
pub(super) fn value(
    decision: &Decision,
    candidates: &Candidates,
    matches: Option<&[PrefixMatch]>,
    waited: Waited,
) -> Option<Bytes> {
    let target = decision.targets().first()?;
    let mut text = format!("endpoint={}", target.id());
    let result = decision.primary_result()?;
    let is_target = |slot: u32| candidates.at(slot).incarnation() == target.incarnation();
    if let Some(&(slot, total)) = result.scored.iter().find(|(slot, _)| is_target(*slot)) {
        let others = result.scored.iter().filter(|(other, _)| *other != slot);
        // Writing to a string cannot fail.
        let _ = write!(text, "; score={total:.3}");
        if let Some(best) = others.map(|(_, total)| *total).max_by(f64::total_cmp) {
            let _ = write!(text, "; margin={:.3}", total - best);
        }
        if let Some(found) = matches.and_then(|matches| matches.get(slot as usize)) {
            let tokens = u64::from(found.matched) * u64::from(found.block_size);
            let _ = write!(text, "; matched-tokens={tokens}");
        }
    }
    let waited = waited.queue + waited.preparation;
    let _ = write!(text, "; wait-ms={}", waited.as_millis());
    // Names of endpoints come from others; a header holds visible ASCII.
    let visible = text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' });
    Some(visible.collect::<String>().into())
}
