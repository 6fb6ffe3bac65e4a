//! `mm-embeddings-cache-scorer`: prefers endpoints that hold more of the request's images, videos and sounds, encoded
//! already.
//!
//! The score is the share of the items that the endpoint holds; 0 for requests without media and where nothing is
//! known. Consumes the matches of `mm-embeddings-cache-producer`, which is then created.
//!
//! Use it where the same images come again; it does nothing for text. It costs one pass over the candidates, beside its
//! producer.

use std::sync::Arc;

use schemars::JsonSchema;

use serde::Deserialize;

use crate::plugins::producers::mm_embeddings_cache::{self, MediaMatch};
use crate::plugins::{BuildCx, BuildError, PluginType, Roles, Stability};
use crate::scheduling::{Call, Category, Column, Scorer};

/// Registry row.
pub static TYPE: PluginType = PluginType::new("mm-embeddings-cache-scorer", Stability::Beta, build).about(
    "Prefers endpoints that hold more of the request's images, videos and sounds in encoded form.",
    "Use it where the same images come again; it does nothing for text. It costs one pass over the \
         candidates, and its producer hashes each item.",
);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Params {
    /// Instance that produces the matches.
    producer_name: String,
}

impl Default for Params {
    fn default() -> Self {
        Self { producer_name: mm_embeddings_cache::TYPE.name.to_owned() }
    }
}

fn build(cx: &mut BuildCx<'_>) -> Result<Roles, BuildError> {
    let params: Params = cx.params()?;
    let matches = cx.consumes(&params.producer_name, Some(mm_embeddings_cache::TYPE.name));
    Ok(Roles::default().scorer(Arc::new(MmEmbeddingsCache { matches })))
}

#[derive(Debug)]
struct MmEmbeddingsCache {
    matches: Column<MediaMatch>,
}

impl Scorer for MmEmbeddingsCache {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(&self, call: &Call<'_>, out: &mut [f64]) {
        let Some(matches) = call.column(self.matches) else { return };
        for (score, found) in out.iter_mut().zip(matches) {
            *score = f64::from(found.matched) / f64::from(found.requested.max(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::fixture::{Fleet, pod, request};
    use crate::scheduling::{Columns, Produced};

    #[test]
    fn the_score_is_the_share_of_items_that_an_endpoint_holds() {
        let mut fleet = Fleet::new([pod("a"), pod("b"), pod("c")]);
        let built = fleet.build(&TYPE, None).unwrap();
        let column = fleet.column::<MediaMatch>("mm-embeddings-cache-producer");
        for (matches, expected) in
            [([(0, 4), (1, 4), (4, 4)], [0.0, 0.25, 1.0]), ([(0, 0), (0, 1), (1, 1)], [0.0, 0.0, 1.0])]
        {
            let cells = matches.map(|(matched, requested)| MediaMatch { matched, requested });
            let mut columns = Columns::new();
            columns.insert(Produced::new(column, cells.to_vec()));
            assert_eq!(fleet.scores(&built.roles, &request("m"), &columns), expected);
        }
        // Nothing was produced, or for other candidates than these.
        assert_eq!(fleet.scores(&built.roles, &request("m"), &Columns::new()), [0.0; 3]);
        let mut stale = Columns::new();
        stale.insert(Produced::new(column, vec![MediaMatch { matched: 1, requested: 1 }]));
        assert_eq!(fleet.scores(&built.roles, &request("m"), &stale), [0.0; 3]);
    }
}
