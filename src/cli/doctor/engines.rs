//! Asks the model servers that a picker knows.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cli::asking::AskArgs;
use crate::doctor::engines::{EngineFacts, Listens};
use crate::doctor::page::Page;
use crate::doctor::picker::{PickerFacts, endpoint_name};

/// Most servers that are asked.
const MOST: usize = 64;
/// Longest time for one server.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time for a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest page that is read, in bytes.
const LONGEST: usize = 16 << 20;

/// Asks up to 64 servers, all at once.
pub(super) async fn ask(picker: &PickerFacts, effective: &Value) -> Vec<EngineFacts> {
    let plugins = effective["plugins"].as_array().into_iter().flatten();
    let source = plugins.clone().find(|plugin| plugin["type"] == "metrics-data-source");
    let parameter = |name: &str, usual: &str| {
        let text = source.and_then(|source| source["parameters"][name].as_str());
        text.filter(|text| !text.is_empty()).unwrap_or(usual).to_owned()
    };
    let (scheme, path) = (parameter("scheme", "http"), parameter("path", "/metrics"));
    let mut asking = JoinSet::new();
    for (place, endpoint) in picker.endpoints().take(MOST).enumerate() {
        let base = format!("{scheme}://{}", endpoint["metrics_address"].as_str().unwrap_or_default());
        let facts = known(endpoint, &picker.prefix);
        let address = endpoint["address"].as_str().and_then(|address| address.parse().ok());
        let path = path.clone();
        asking.spawn(async move {
            let (page, listens) = tokio::join!(page(base, &path), listens(address));
            (place, EngineFacts { page, listens, ..facts })
        });
    }
    let mut found = asking.join_all().await;
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, facts)| facts).collect()
}

/// What the picker knows of an endpoint.
fn known(endpoint: &Value, prefix: &Value) -> EngineFacts {
    let address = &endpoint["address"];
    let precise =
        prefix["plugins"].as_object().into_iter().flatten().map(|(_, plugin)| plugin).collect::<Vec<_>>();
    let rows = precise.iter().filter_map(|plugin| plugin["engines"].as_array()).flatten();
    let heard = rows.filter(|row| &row["endpoint"] == address).filter_map(|row| row["events"].as_u64()).sum();
    EngineFacts {
        name: endpoint_name(endpoint),
        port: address.as_str().and_then(|text| text.rsplit(':').next()?.parse().ok()).unwrap_or(0),
        known_block_size: endpoint["block_size"].as_u64().unwrap_or(0),
        known_blocks: endpoint["num_blocks"].as_u64().unwrap_or(0),
        read: !endpoint["age_seconds"].is_null(),
        events: (!precise.is_empty()).then_some(heard),
        ..EngineFacts::default()
    }
}

async fn page(url: String, path: &str) -> Option<Page> {
    let answer = timeout(PATIENCE, AskArgs::anonymous(url).get_at_most(path, LONGEST)).await.ok()?.ok()?;
    (answer.status == 200).then(|| Page::new(String::from_utf8_lossy(&answer.body).into_owned()))
}

async fn listens(address: Option<SocketAddr>) -> Listens {
    let Some(address) = address else { return Listens::Unknown };
    match timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Listens::Yes,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Listens::No,
        _ => Listens::Unknown,
    }
}
