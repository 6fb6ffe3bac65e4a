//! What a request counts at the servers that work on it.

use std::sync::Arc;

use smallvec::SmallVec;

use super::Director;
use super::understood::Understood;
use crate::pool::Endpoint;
use crate::scheduling::{Candidates, Columns, Decision, unmatched_tokens};

/// Tokens of a request in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// Those of the prompt that the server that answers has to process.
    pub(super) prompt: u64,
    /// Those that its response may have.
    pub(super) response: u64,
    /// Those of the prompt at the first server of each stage beside it.
    pub(super) stages: SmallVec<[u64; 2]>,
    /// All count until the response ends, and not only until it begins.
    pub(super) until_end: bool,
}

impl Counted {
    /// Tokens at the server that answers. It does not process the prompt where another stage does: those tokens count
    /// there.
    pub(super) fn at_target(&self, decision: &Decision) -> u64 {
        let prompt = if decision.prefill_target().is_some() { 0 } else { self.prompt };
        prompt.saturating_add(self.response)
    }
}

impl Director {
    /// Counts the request at the servers that were chosen.
    pub(super) fn count(
        &self,
        request: &Understood,
        decision: &Decision,
        columns: &Columns,
        candidates: &Candidates,
    ) -> Counted {
        let prompt = request.prompt_tokens();
        let matches = self.parts.in_flight_matches.and_then(|column| columns.slice(column));
        let at = |endpoint: &Arc<Endpoint>| {
            let mut cells = candidates.iter().zip(matches.unwrap_or_default());
            let found = cells.find(|(candidate, _)| Arc::ptr_eq(candidate, endpoint));
            found.map_or(prompt, |(_, it)| unmatched_tokens(prompt, it.matched, it.total, it.block_size))
        };
        let response = self.parts.in_flight.response;
        Counted {
            prompt: decision.targets().first().map_or(prompt, at),
            response: response.map_or(0, |it| it.tokens(prompt, request.body.inference.max_output_tokens)),
            stages: decision.stage_firsts().map(at).collect(),
            until_end: response.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use smallvec::smallvec;

    use super::*;
    use crate::director::tests::{ask, handle, parts};
    use crate::director::{DirectorParts, Exchange, ResponseSide};
    use crate::prefix::PrefixMatch;
    use crate::request::{Headers, Parsers};
    use crate::scheduling::{
        Call, Column, InFlightRule, Produced, Producer, ProfilePlugin, ResponseEstimate,
    };

    /// Says of every endpoint that it holds 2 of the 5 blocks of a prompt.
    struct Holds(Column<PrefixMatch>);

    impl Producer for Holds {
        fn produce(&self, call: &Call<'_>) -> Result<SmallVec<[Produced; 1]>, String> {
            let held = PrefixMatch { matched: 2, total: 5, block_size: 64, cached: 2 };
            Ok(smallvec![Produced::new(self.0, vec![held; call.len()])])
        }
    }

    /// A prompt of 400 tokens, with a bound for the response.
    fn body(bound: &str) -> &'static str {
        let prompt = "word".repeat(400);
        Box::leak(format!(r#"{{"model":"m","prompt":"{prompt}"{bound}}}"#).into_boxed_str())
    }

    fn director(rule: InFlightRule, matches: bool) -> Director {
        let column = Column::new(0);
        let all = parts(&[8000], &Parsers::default());
        let producer: Arc<dyn Producer> = Arc::new(Holds(column));
        let producers = vec![ProfilePlugin::new("holds", "holds", producer)];
        let in_flight_matches = matches.then_some(column);
        Director::new(DirectorParts { in_flight: rule, in_flight_matches, producers, ..all })
    }

    fn tokens(director: &Director) -> u64 {
        director.pool().snapshot().endpoints()[0].load().in_flight_tokens()
    }

    fn begun(director: &Director, bound: &str) -> Exchange {
        handle(director, ask(body(bound), Headers::new())).unwrap().exchange
    }

    fn answer(exchange: &mut Exchange) {
        exchange.on_headers(&Headers::from([(":status", "200")]), None, false);
        exchange.on_chunk(Bytes::from_static(b"{}"), false);
    }

    #[test]
    fn without_the_plugin_the_whole_prompt_counts_until_the_response_begins() {
        let director = director(InFlightRule::default(), false);
        let mut exchange = begun(&director, "");
        let whole = tokens(&director);
        assert!((400..420).contains(&whole), "{whole}");
        answer(&mut exchange);
        assert_eq!(tokens(&director), 0);
    }

    #[test]
    fn blocks_that_the_server_holds_do_not_count() {
        let whole = {
            let director = director(InFlightRule::default(), false);
            let _exchange = begun(&director, "");
            tokens(&director)
        };
        let director = director(InFlightRule::default(), true);
        let mut exchange = begun(&director, "");
        assert_eq!(tokens(&director), 3 * 64 + (whole - 5 * 64));
        answer(&mut exchange);
        assert_eq!(tokens(&director), 0);
    }

    #[test]
    fn a_response_that_counts_does_so_until_its_end_and_within_what_the_client_wants() {
        let response = Some(ResponseEstimate { ratio: 2.0, most: Some(1000) });
        for (bound, counts) in [("", None), (r#","max_tokens":7"#, Some(7)), (r#","max_tokens":5000"#, None)]
        {
            let director = director(InFlightRule { response }, false);
            let mut exchange = begun(&director, bound);
            let all = tokens(&director);
            match counts {
                Some(response) => assert!((400 + response..420 + response).contains(&all), "{all}"),
                None => assert!((1200..1260).contains(&all) && all.is_multiple_of(3), "{all}"),
            }
            answer(&mut exchange);
            assert_eq!(tokens(&director), all, "until the end");
            exchange.on_end();
            drop(exchange);
            assert_eq!(tokens(&director), 0);
        }
    }
}
