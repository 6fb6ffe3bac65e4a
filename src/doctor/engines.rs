//! Compares what model servers report of themselves with what the picker believes of them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::blocks;
use super::page::Page;
use super::{Family, Finding, Rule, few};

const FAMILY: Family = Family::Engines;

/// The series in which vLLM reports the configuration of its cache.
const CACHE: &str = "vllm:cache_config_info";

/// The facts of one model server.
#[derive(Clone, Debug, Default)]
pub struct EngineFacts {
    /// The server, as `namespace/name (address)`.
    pub name: String,
    /// The port that requests go to.
    pub port: u16,
    /// The tokens of a cache block that the picker read; 0 if it read none.
    pub known_block_size: u64,
    /// The number of cache blocks that the picker read; 0 if it read none.
    pub known_blocks: u64,
    /// The picker has read a metrics page of the server.
    pub read: bool,
    /// The whole metrics page, as doctor read it; `None` if the server did not answer.
    pub page: Option<Page>,
    /// Whether a process listens on the port that requests go to.
    pub listens: Listens,
    /// The number of KV-cache events that the picker received from the server; `None` if it does not listen for events.
    pub events: Option<u64>,
}

/// The result of an attempt to connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listens {
    /// The connection was accepted.
    Yes,
    /// The connection was refused.
    No,
    /// There was no answer in time, which proves nothing.
    #[default]
    Unknown,
}

const NOTHING_LISTENS: Rule = Rule::error(
    "nothing-listens",
    FAMILY,
    "No endpoint listens on a port that requests are sent to.",
    "Each request that goes there fails with 503.",
);
const CONFIGURED_BLOCKS: Rule = Rule::error(
    "block-size-differs-from-configuration",
    FAMILY,
    "A plugin counts blocks of another size than the engine's.",
    "The picker expects the wrong prompts to be cached, so requests go to the wrong server.",
);
const MIXED_BLOCKS: Rule = Rule::warning(
    "block-size-differs-between-servers",
    FAMILY,
    "Servers of one pool have blocks of different sizes.",
    "Matched blocks mean more tokens on one server than on another, so scores cannot be compared.",
);
const CACHING_OFF: Rule = Rule::warning(
    "prefix-caching-off",
    FAMILY,
    "A server keeps no prefix cache, and the configuration prefers servers by their prefix cache.",
    "Requests crowd on a server for the sake of a cache that does not exist.",
);
const FILTERED: Rule = Rule::warning(
    "scrape-filtered-wrongly",
    FAMILY,
    "The server's whole metrics page has its cache configuration, but the part that the picker reads lacks it.",
    "A filter between the picker and the server removes series, and the plugins that need them guess.",
);
const EVENTS_SILENT: Rule = Rule::warning(
    "kv-events-silent",
    FAMILY,
    "A server has processed prompts, but the picker received no KV-cache event from it.",
    "The precise prefix index does not know what that server has cached.",
);

/// The rules of this file.
pub const RULES: &[&Rule] =
    &[&NOTHING_LISTENS, &CONFIGURED_BLOCKS, &MIXED_BLOCKS, &CACHING_OFF, &FILTERED, &EVENTS_SILENT];

impl EngineFacts {
    fn cache(&self, label: &str) -> Option<String> {
        self.page.as_ref()?.named(CACHE).next()?.label(label)
    }

    /// The tokens of a cache block: those that the server's page reports, else those that the picker read.
    fn block_size(&self) -> Option<u64> {
        let told = self.cache("block_size").and_then(|text| text.trim().parse().ok());
        told.or(Some(self.known_block_size)).filter(|size| *size > 0)
    }
}

/// Returns what is wrong with the model servers. `effective` is the running configuration.
pub fn findings(engines: &[EngineFacts], effective: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(ports(engines));
    found.extend(block_sizes(engines, effective));
    found.extend(caching(engines, effective));
    found.extend(filtered(engines));
    found.extend(events(engines));
    found
}

fn ports(engines: &[EngineFacts]) -> Vec<Finding> {
    let mut by_port: BTreeMap<u16, Vec<&EngineFacts>> = BTreeMap::new();
    for engine in engines {
        by_port.entry(engine.port).or_default().push(engine);
    }
    by_port.retain(|_, engines| engines.iter().all(|engine| engine.listens == Listens::No));
    by_port
        .into_iter()
        .map(|(port, engines)| {
            NOTHING_LISTENS.found(
                few(engines.iter().map(|engine| engine.name.as_str())),
                format!("port {port} refuses connections on all {} endpoints that have it", engines.len()),
                format!("`targetPorts: [{{number: PORT}}]` of the pool with the port that the servers listen on, in place of {port}"),
            )
        })
        .collect()
}

fn plugins(effective: &Value) -> impl Iterator<Item = (&str, &str, Option<&Value>)> {
    effective["plugins"].as_array().into_iter().flatten().filter_map(|plugin| {
        let kind = plugin["type"].as_str()?;
        Some((plugin["name"].as_str().unwrap_or(kind), kind, plugin.get("parameters")))
    })
}

fn block_sizes(engines: &[EngineFacts], effective: &Value) -> Vec<Finding> {
    let mut sizes: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for engine in engines {
        if let Some(size) = engine.block_size() {
            sizes.entry(size).or_default().push(&engine.name);
        }
    }
    let mut found = Vec::new();
    for (size, names) in &sizes {
        for mismatch in blocks::mismatches(plugins(effective), *size) {
            found.push(CONFIGURED_BLOCKS.found(
                few(names.iter().copied()),
                mismatch.message,
                mismatch.remedy,
            ));
        }
    }
    if sizes.len() > 1 {
        let each: Vec<String> = sizes
            .iter()
            .map(|(size, names)| format!("{size} tokens on {}", few(names.iter().copied())))
            .collect();
        let most = sizes.iter().max_by_key(|(_, names)| names.len()).map_or(16, |(size, _)| *size);
        found.push(MIXED_BLOCKS.found(
            "the pool",
            format!("blocks have {}", each.join("; ")),
            format!("`--block-size {most}` on the command line of every server"),
        ));
    }
    found
}

fn caching(engines: &[EngineFacts], effective: &Value) -> Option<Finding> {
    let reader = plugins(effective).find(|(_, kind, _)| kind.contains("prefix-cache"))?.0;
    let off = |engine: &&EngineFacts| {
        engine.cache("enable_prefix_caching").is_some_and(|value| value.eq_ignore_ascii_case("false"))
    };
    let off: Vec<&str> = engines.iter().filter(off).map(|engine| engine.name.as_str()).collect();
    (!off.is_empty()).then(|| {
        CACHING_OFF.found(
            few(off.iter().copied()),
            format!(
                "vllm:cache_config_info says enable_prefix_caching=\"False\", and {reader:?} counts on it"
            ),
            "`--enable-prefix-caching` on the command line of vLLM",
        )
    })
}

fn filtered(engines: &[EngineFacts]) -> Option<Finding> {
    let wrong = |engine: &&EngineFacts| {
        engine.read
            && engine.cache("block_size").is_some()
            && engine.known_block_size == 0
            && engine.known_blocks == 0
    };
    let wrong: Vec<&str> = engines.iter().filter(wrong).map(|engine| engine.name.as_str()).collect();
    (!wrong.is_empty()).then(|| {
        FILTERED.found(
            few(wrong.iter().copied()),
            "the page has vllm:cache_config_info, and the picker read neither size nor number of blocks",
            "`--filtered-scrapes=false`, or a proxy before the server that passes the query `name[]` on unchanged",
        )
    })
}

fn events(engines: &[EngineFacts]) -> Option<Finding> {
    let silent = |engine: &&EngineFacts| {
        let worked = engine.page.as_ref().and_then(|page| page.sum("vllm:prompt_tokens_total", None));
        engine.events == Some(0) && worked.unwrap_or(0.0) > 0.0
    };
    let silent: Vec<&str> = engines.iter().filter(silent).map(|engine| engine.name.as_str()).collect();
    (!silent.is_empty()).then(|| {
        EVENTS_SILENT.found(
            few(silent.iter().copied()),
            "the server has processed prompts, and the picker received no event from it",
            "`--kv-events-config '{\"enable_kv_cache_events\": true, \"publisher\": \"zmq\", \"topic\": \"kv@POD@MODEL\"}'` on the \
             command line of vLLM",
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn engine(name: &str, size: u64, caching: &str) -> EngineFacts {
        let page = format!(
            "vllm:cache_config_info{{block_size=\"{size}\",enable_prefix_caching=\"{caching}\"}} 1.0\n\
             vllm:prompt_tokens_total{{}} 7\n"
        );
        EngineFacts {
            name: name.into(),
            port: 8000,
            known_block_size: size,
            known_blocks: 100,
            read: true,
            page: Some(Page::new(page)),
            listens: Listens::Yes,
            events: None,
        }
    }

    fn found(engines: &[EngineFacts]) -> Vec<&'static str> {
        let effective = json!({"plugins": [{"type": "prefix-cache-scorer"},
            {"type": "approx-prefix-cache-producer", "name": "p", "parameters": {"blockSizeTokens": 16}}]});
        findings(engines, &effective).iter().map(|finding| finding.rule.name).collect()
    }

    #[test]
    fn sound_servers_give_no_finding_and_each_fault_gives_its_own() {
        let sound = || engine("a", 16, "True");
        assert_eq!(found(&[sound(), sound()]), [""; 0]);
        assert_eq!(found(&[engine("a", 32, "True")]), ["block-size-differs-from-configuration"]);
        assert_eq!(
            found(&[sound(), engine("b", 32, "True")]),
            ["block-size-differs-from-configuration", "block-size-differs-between-servers"]
        );
        assert_eq!(found(&[engine("a", 16, "False")]), ["prefix-caching-off"]);
        assert_eq!(
            found(&[EngineFacts { known_block_size: 0, known_blocks: 0, ..sound() }]),
            ["scrape-filtered-wrongly"]
        );
        assert_eq!(found(&[EngineFacts { events: Some(0), ..sound() }]), ["kv-events-silent"]);
        let refused = EngineFacts { listens: Listens::No, ..sound() };
        assert_eq!(found(std::slice::from_ref(&refused)), ["nothing-listens"]);
        assert_eq!(found(&[refused, sound()]), [""; 0], "another pod listens on that port");
    }
}
