//! Endpoints that come and go in the file.

use std::collections::BTreeSet;

use crate::support::{Stack, chat, eventually, holds};

async fn servers_used(stack: &Stack, requests: usize) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for number in 0..requests {
        let reply = stack.client().post("/v1/chat/completions", &chat(&format!("{number}"), 1, false)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        used.insert(reply.header("x-sim-server").to_owned());
    }
    used
}

async fn ready(stack: &Stack, count: usize) {
    holds("the pool has the size of the file", async || {
        stack.pointsman.metric("llm_d_epp_ready_endpoints", &[]).await == Some(count as f64)
    })
    .await;
}

/// Contents of the file that were refused so far.
fn refusals(stack: &Stack) -> usize {
    let log = stack.pointsman.process.log();
    log.iter()
        .filter(|line| line.contains("endpoints file refused, the last good state stays in force"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_added_to_the_file_get_requests_and_removed_ones_do_not() {
    let stack = Stack::start(3).await;
    let list: Vec<_> = stack.fleet.list().collect();
    stack.endpoints.write(list[..1].to_vec());
    ready(&stack, 1).await;
    assert_eq!(servers_used(&stack, 20).await, BTreeSet::from(["sim-0".to_owned()]));

    stack.endpoints.write(list[1..].to_vec());
    ready(&stack, 2).await;
    eventually("the removed server is not used and both new ones are", async || {
        let used = servers_used(&stack, 20).await;
        (used == BTreeSet::from(["sim-1".to_owned(), "sim-2".to_owned()])).then_some(())
    })
    .await;
    stack.assert_idle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_went_wrong_leaves_the_last_good_pool_in_place() {
    let stack = Stack::start(2).await;
    let whole = std::fs::read_to_string(stack.endpoints.path()).unwrap();
    let texts = ["endpoints: [", "- no\n", "endpoints:\n- {name: a, address: nowhere, port: \"x\"}\n"];
    for (before, bad) in texts.into_iter().enumerate() {
        stack.endpoints.write_text(bad);
        holds("the log says why", async || refusals(&stack) > before).await;
        assert_eq!(servers_used(&stack, 10).await.len(), 2, "after {bad:?}");
    }
    stack.endpoints.write(stack.fleet.list().take(1).collect::<Vec<_>>());
    ready(&stack, 1).await;
    stack.endpoints.write_text(&whole);
    ready(&stack, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_vanishes_and_returns_is_followed() {
    let stack = Stack::start(2).await;
    std::fs::remove_file(stack.endpoints.path()).unwrap();
    holds("its end was noticed", async || refusals(&stack) > 0).await;
    assert_eq!(servers_used(&stack, 10).await.len(), 2, "the last good pool stays");
    stack.endpoints.write(stack.fleet.list().take(1).collect::<Vec<_>>());
    ready(&stack, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_slowly_takes_no_server_away() {
    use std::io::Write as _;
    let stack = Stack::start(3).await;
    let whole = std::fs::read_to_string(stack.endpoints.path()).unwrap();
    // The first half is a good file with one server.
    let half = whole.lines().take(2).map(str::len).sum::<usize>() + 2;
    let mut writer = std::fs::File::create(stack.endpoints.path()).unwrap();
    writer.write_all(&whole.as_bytes()[..half]).unwrap();
    // Longer than two looks at the content are apart.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while std::time::Instant::now() < end {
        let ready = stack.pointsman.metric("llm_d_epp_ready_endpoints", &[]).await;
        assert_eq!(ready, Some(3.0), "servers were lost to a half-written file");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    writer.write_all(&whole.as_bytes()[half..]).unwrap();
    let known = stack.fleet.servers[0].addr;
    writeln!(writer, "- {{name: more, address: {}, port: {}}}", known.ip(), known.port()).unwrap();
    drop(writer);
    ready(&stack, 4).await;
}
