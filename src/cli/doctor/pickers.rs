//! Asks a running picker.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::cli::asking::AskArgs;
use crate::doctor::page::Page;
use crate::doctor::picker::PickerFacts;
use crate::doctor::replicas::ReplicaFacts;
use crate::telemetry::unix_time;

/// Time between two looks at counters.
const APART: Duration = Duration::from_millis(500);

/// What a picker shows, and what is compared with other replicas.
pub(super) async fn ask(ask: &AskArgs) -> anyhow::Result<(PickerFacts, ReplicaFacts)> {
    let before = page(ask).await?;
    let (replica, pool, config) = read(ask).await?;
    let plugins = needed(ask, "/debug/plugins/state").await?;
    let prefix = ask.document("/debug/prefix").await?.unwrap_or_default();
    let peers = ask.document("/debug/peers").await?.unwrap_or_default();
    tokio::time::sleep(APART).await;
    let after = page(ask).await?;
    Ok((PickerFacts { url: ask.url.clone(), pool, config, plugins, prefix, peers, before, after }, replica))
}

/// What is compared with other replicas, alone.
pub(super) async fn compared(ask: &AskArgs) -> anyhow::Result<ReplicaFacts> {
    read(ask).await.map(|(replica, ..)| replica)
}

/// What is compared, with the pages of the pool and of the configuration that it is read from.
async fn read(ask: &AskArgs) -> anyhow::Result<(ReplicaFacts, Value, Value)> {
    let asked = now();
    let pool = needed(ask, "/debug/pool").await?;
    let answered = now();
    let config = ask.document("/debug/config").await?.unwrap_or_default();
    let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
    let clock = text(&pool, "timestamp").and_then(|time| unix_time(&time));
    let replica = ReplicaFacts {
        url: ask.url.clone(),
        digest: text(&config, "digest"),
        pool: format!(
            "{}/{}",
            text(&pool, "namespace").unwrap_or_default(),
            text(&pool, "name").unwrap_or_default()
        ),
        ahead: clock.map(|clock| clock - f64::midpoint(asked, answered)),
    };
    Ok((replica, pool, config))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

async fn page(ask: &AskArgs) -> anyhow::Result<Page> {
    let answer = ask.get("/metrics").await?;
    if answer.status != 200 {
        bail!("/metrics was answered with {}", answer.status);
    }
    Ok(Page::new(String::from_utf8_lossy(&answer.body).into_owned()))
}

/// A page that every version has.
async fn needed(ask: &AskArgs, path: &str) -> anyhow::Result<Value> {
    let page = ask.document(path).await?;
    page.with_context(|| format!("there is no {path}: this is no picker, or one of another version"))
}
