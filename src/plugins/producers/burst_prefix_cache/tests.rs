//! Windows of requests, and where they go.

use std::time::Duration;

use serde_json::{Value, json};

use super::placing::place;
use super::*;
use crate::plugins::fixture::{Fleet, Pod, Request, pod, request};
use crate::pool::EndpointId;
use crate::request::{Headers, MediaEstimate};
use crate::scheduling::Columns;

const REQUESTS: PlacingRules =
    PlacingRules { per_replica: usize::MAX, min_shared: 0, balance: Balance::Requests };

/// The endpoints of requests with these blocks, by letters; `-` for none. Endpoints are called a, b, c … and have so
/// many running requests.
fn placed(prompts: &[&[u64]], running: &[u64], rules: PlacingRules) -> String {
    let ids: Vec<EndpointId> =
        (0..running.len()).map(|at| EndpointId::new("n", &letter(at).to_string())).collect();
    let replicas: Vec<placing::Replica<'_>> =
        ids.iter().zip(running).map(|(id, running)| placing::Replica { id, running: *running }).collect();
    let blocks = |prompt: &&[u64]| crate::prefix::BlockHashes::from_chains(64, &[prompt]);
    let members: Vec<Option<Member>> =
        prompts.iter().map(|prompt| Member::new(&blocks(prompt), &rules)).collect();
    place(&members, &replicas, &rules).into_iter().map(|chosen| chosen.map_or('-', letter)).collect()
}

fn letter(at: usize) -> char {
    char::from(b'a' + at as u8)
}

#[test]
fn equal_prompts_go_together_and_units_are_spread() {
    const A: &[u64] = &[1, 2, 3];
    const B: &[u64] = &[7, 8];
    const C: &[u64] = &[9];
    let requests = |prompts: &[&[u64]], running: &[u64]| placed(prompts, running, REQUESTS);
    for (prompts, running, expected) in [
        // Nobody, nothing, and nowhere to go.
        (&[][..], &[0, 0][..], ""),
        (&[&[][..], &[][..]], &[0, 0], "--"),
        (&[A, A], &[], "--"),
        // One that equals no other is left to the other scorers, however long its beginning is shared.
        (&[A], &[0, 0], "-"),
        (&[A, &[1, 2, 4]], &[0, 0], "--"),
        (&[A, A, B], &[0, 0], "aa-"),
        // The longer prompt chooses first; the second unit goes where less of the window is.
        (&[B, A, B, A], &[0, 0], "baba"),
        (&[A, A, A, B, B, C, C], &[0, 0], "aaabbbb"),
        // Ties: fewer running requests, then the id.
        (&[A, A], &[3, 1, 2], "bb"),
        (&[A, A], &[2, 2, 2], "aa"),
    ] {
        assert_eq!(requests(prompts, running), expected, "{prompts:?} on {running:?}");
    }
}

#[test]
fn a_unit_beyond_its_limit_goes_on_at_the_next_endpoint() {
    let rules = |per_replica| PlacingRules { per_replica, ..REQUESTS };
    let five: &[&[u64]] = &[&[1], &[1], &[1], &[1], &[1]];
    assert_eq!(placed(five, &[0, 0, 0], rules(2)), "aabbc");
    // More than all endpoints may have: a second round begins.
    assert_eq!(placed(five, &[0, 0], rules(1)), "ababa");
    assert_eq!(placed(five, &[0, 0], rules(5)), "aaaaa");
}

#[test]
fn prompts_that_begin_alike_are_drawn_together_up_to_the_share_of_an_endpoint() {
    let rules = |min_shared| PlacingRules { min_shared, ..REQUESTS };
    let families: &[&[u64]] =
        &[&[1, 2, 3], &[1, 2, 3], &[1, 2, 4], &[1, 2, 4], &[7, 8, 5], &[7, 8, 5], &[7, 8, 6], &[7, 8, 6]];
    // Two of the four units fill the share of an endpoint: four requests of eight.
    assert_eq!(placed(families, &[0, 0], rules(2)), "aaaabbbb");
    // Nothing draws the second family's units together that shares no three blocks.
    assert_eq!(placed(families, &[0, 0], rules(3)), "aabbaabb");
    // A crowd with one beginning does not go to one endpoint.
    let crowd: &[&[u64]] =
        &[&[1, 2, 3], &[1, 2, 3], &[1, 2, 4], &[1, 2, 4], &[1, 2, 5], &[1, 2, 5], &[1, 2, 6], &[1, 2, 6]];
    assert_eq!(placed(crowd, &[0, 0, 0, 0], rules(2)), "aabbccdd");
    // Single requests take part if they share enough with another, behind the units.
    assert_eq!(placed(&[&[1, 2, 9], &[1, 2, 3], &[1, 2, 3], &[5, 6]], &[0, 0], rules(2)), "baa-");
    assert_eq!(placed(&[&[1, 2, 9], &[1, 2, 3], &[1]], &[0], rules(2)), "aa-");
    assert_eq!(placed(&[&[1, 2, 9], &[1, 3, 3]], &[0, 0], rules(2)), "--");
}

#[test]
fn tokens_count_once_where_they_are_shared() {
    let rules = PlacingRules { balance: Balance::Blocks, ..REQUESTS };
    // Eight requests of one block weigh less than two of four.
    let prompts: &[&[u64]] = &[&[1, 2, 3, 4], &[1, 2, 3, 4], &[9], &[9], &[9], &[9], &[8], &[8]];
    assert_eq!(placed(prompts, &[0, 0], rules), "aabbbbbb");
    assert_eq!(placed(prompts, &[0, 0], REQUESTS), "aabbbbaa");
    // The second prompt adds one block to the endpoint that holds its first three.
    let rules = PlacingRules { min_shared: 3, ..rules };
    let prompts: &[&[u64]] = &[&[1, 2, 3, 4], &[1, 2, 3, 4], &[1, 2, 3, 5], &[1, 2, 3, 5], &[6, 7], &[6, 7]];
    assert_eq!(placed(prompts, &[0, 0], rules), "aaaabb");
}

struct Burst {
    fleet: Fleet,
    roles: Roles,
}

impl Burst {
    fn new(params: Value, pods: impl IntoIterator<Item = Pod>) -> Self {
        let mut fleet = Fleet::new(pods);
        let roles = fleet.build(&TYPE, Some(params)).unwrap().roles;
        Self { fleet, roles }
    }

    fn prepare(&self, request: &Request, dry_run: bool) -> Option<Preparing> {
        let headers = Headers::new();
        self.roles.preparer.as_ref().unwrap().prepare(&PrepareCall {
            id: "r",
            target_model: &request.model,
            path: "/v1/completions",
            headers: &headers,
            body: &request.body,
            inference: &request.inference,
            media: &MediaEstimate::DEFAULT,
            dry_run,
        })
    }

    /// The request as it is once its window has closed.
    async fn waited(&self, mut request: Request) -> Request {
        let prepared = self.prepare(&request, false).unwrap().await.unwrap();
        request.findings = prepared.finding.into_iter().collect();
        request
    }

    /// Matched blocks of each endpoint and all blocks.
    fn matches(&self, request: &Request) -> (Vec<u32>, u32) {
        let columns: Columns = self.fleet.produce(&self.roles, request);
        let cells = columns.slice(self.fleet.column::<PrefixMatch>(TYPE.name)).unwrap();
        (cells.iter().map(|cell| cell.matched).collect(), cells.first().map_or(0, |cell| cell.total))
    }
}

/// A prompt of two blocks and a bit.
fn rollout(number: u32) -> Request {
    request("m").prompt(&format!("{number:04}{}", "x".repeat(600)))
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_window_match_in_full_where_they_were_placed() {
    let burst = Burst::new(json!({"windowDurationMs": 20}), [pod("a"), pod("b")]);
    let began = tokio::time::Instant::now();
    let (first, other, single, again, second) = tokio::join!(
        burst.waited(rollout(1)),
        burst.waited(rollout(2)),
        burst.waited(rollout(3)),
        burst.waited(rollout(2)),
        burst.waited(rollout(1)),
    );
    assert_eq!(began.elapsed(), Duration::from_millis(20));
    for (request, expected) in
        [(&second, [3, 0]), (&first, [3, 0]), (&other, [0, 3]), (&again, [0, 3]), (&single, [0, 0])]
    {
        assert_eq!(burst.matches(request), (expected.to_vec(), 3));
    }
    // The next window knows nothing of this one.
    let late = burst.waited(rollout(1)).await;
    assert_eq!(began.elapsed(), Duration::from_millis(40));
    assert_eq!(burst.matches(&late), (vec![0, 0], 3));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_or_has_no_prompt_or_is_tried_out_is_in_nobodys_window() {
    let burst = Burst::new(json!({}), [pod("a"), pod("b")]);
    assert!(burst.prepare(&request("m"), false).is_none() && burst.prepare(&rollout(1), true).is_none());
    let gone = burst.prepare(&rollout(1), false).unwrap();
    let stays = burst.prepare(&rollout(1), false).unwrap();
    drop(gone);
    let mut alone = rollout(1);
    alone.findings = stays.await.unwrap().finding.into_iter().collect();
    assert_eq!(burst.matches(&alone), (vec![0, 0], 3));
    // Without a window nothing is known.
    assert_eq!(burst.matches(&rollout(1)), (vec![0, 0], 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_window_lets_the_rest_go_on_without() {
    let burst = Burst::new(json!({"maxBatchSize": 2}), [pod("a"), pod("b")]);
    let (one, two) = (burst.prepare(&rollout(1), false).unwrap(), burst.prepare(&rollout(1), false).unwrap());
    let refused = burst.prepare(&rollout(1), false).unwrap().await.unwrap_err();
    assert_eq!(refused.to_string(), "the window holds 2 requests already");
    assert!(one.await.is_ok() && two.await.is_ok());
    assert!(burst.prepare(&rollout(1), false).unwrap().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_or_ruled_out_matches_nowhere_else() {
    let burst = Burst::new(json!({}), [pod("a").running(1), pod("b")]);
    let (first, second) = tokio::join!(burst.waited(rollout(1)), burst.waited(rollout(1)));
    assert_eq!(burst.matches(&first).0, [0, 3]);
    let only = vec![crate::pool::EndpointSpec::new(
        EndpointId::new("default", "a"),
        "10.0.0.97:8000".parse().unwrap(),
    )];
    burst.fleet.pool.replace_endpoints(only);
    assert_eq!(burst.matches(&second).0, [0]);
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    for (params, path) in [
        (json!({"windowDurationMs": 0}), "windowDurationMs"),
        (json!({"windowDurationMs": 10_001}), "windowDurationMs"),
        (json!({"maxPerReplica": 0}), "maxPerReplica"),
        (json!({"maxPerReplica": -2}), "maxPerReplica"),
        (json!({"blockSizeTokens": 0}), "blockSizeTokens"),
        (json!({"maxPrefixTokensToMatch": 63}), "maxPrefixTokensToMatch"),
        (json!({"maxPrefixTokensToMatch": -1}), "maxPrefixTokensToMatch"),
        (json!({"minColocateBlocks": -1}), "minColocateBlocks"),
        (json!({"maxBatchSize": 0}), "maxBatchSize"),
    ] {
        let error = Fleet::new([]).build(&TYPE, Some(params.clone())).unwrap_err();
        assert_eq!(error.path, path, "{params}");
    }
    for params in [
        json!({"balanceBy": "", "maxPerReplica": -1, "maxBatchSize": -1, "windowDurationMs": 10_000}),
        json!({"balanceBy": "tokens", "maxPrefixTokensToMatch": 64, "minColocateBlocks": 3}),
    ] {
        assert!(Fleet::new([]).build(&TYPE, Some(params.clone())).is_ok(), "{params}");
    }
    assert!(Fleet::new([]).build(&TYPE, Some(json!({"balanceBy": "bytes"}))).is_err());
}
