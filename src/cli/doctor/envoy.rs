//! Asks Envoy's admin port.

use anyhow::Context as _;
use serde_json::Value;

use super::gathered::Gathered;
use crate::cli::asking::AskArgs;
use crate::doctor::envoy::{EnvoyFacts, UNREACHABLE, findings};
use crate::doctor::waits::Waits;

/// Looks at the Envoy whose admin port is at `url`.
pub(super) async fn look(url: &str, waits: Option<Waits>, gathered: &mut Gathered) {
    match ask(url).await {
        Ok(facts) => {
            let version =
                facts.version.map_or_else(String::new, |(major, minor)| format!(" {major}.{minor}"));
            gathered.looked_at.push(format!("Envoy{version} {url}"));
            gathered.findings.extend(findings(url, &facts, waits));
        }
        Err(error) => gathered.findings.push(UNREACHABLE.found(
            url,
            format!("{error:#}"),
            "`--envoy-admin http://HOST:PORT` with the address under `admin` in Envoy's file",
        )),
    }
}

async fn ask(url: &str) -> anyhow::Result<EnvoyFacts> {
    let ask = AskArgs::anonymous(url.to_owned());
    let (info, dump) = (read(&ask, "/server_info").await?, read(&ask, "/config_dump").await?);
    Ok(EnvoyFacts::of_dump(&dump, &info))
}

async fn read(ask: &AskArgs, path: &str) -> anyhow::Result<Value> {
    ask.document(path).await?.with_context(|| format!("{path} was answered with 404"))
}
