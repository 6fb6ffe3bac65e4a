//! One pool against split serving: the same requests to as many servers, once with each of them doing all, and once with
//! prompts on servers of their own.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::child::Guarded;
use super::client::{Measured, metric, page};
use super::load;
use super::stack::{Envoy, Fleet, Folder, Picker};
use super::table::{millis, say};

/// Servers of a kind; of all kinds there are twice as many.
const HALF: usize = 2;
/// Long prompts, and as many short ones.
const LONG: usize = 120;
/// Words of a long prompt, each of which is a token to the simulated servers.
const LONG_WORDS: usize = 3000;
/// Tokens in the answer to a short prompt.
const SHORT_TOKENS: u32 = 80;

/// Flags of all servers: a prompt token takes a tenth of a millisecond, and a step of the others five.
const SERVERS: [&str; 6] =
    ["--prefill-us-per-token", "100", "--inter-token-ms", "5", "--kv-transfer-us-per-token", "5"];

const ONE_POOL: &str = "\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: running-requests-size-scorer}
- {type: max-score-picker}
- {type: single-profile-handler}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: queue-scorer}, {pluginRef: running-requests-size-scorer}, {pluginRef: max-score-picker}]
";

const SPLIT: &str = "\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: queue-scorer}
- {type: running-requests-size-scorer}
- {type: max-score-picker}
- {type: prefill-filter}
- {type: decode-filter}
- type: prefix-based-pd-decider
  parameters: {nonCachedTokens: 512}
- type: disagg-profile-handler
  parameters: {maxPrefillCandidates: 2, deciders: {prefill: prefix-based-pd-decider}}
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: queue-scorer}, {pluginRef: running-requests-size-scorer}, {pluginRef: max-score-picker}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: queue-scorer}, {pluginRef: running-requests-size-scorer}, {pluginRef: max-score-picker}]
";

/// A sidecar in a process of its own.
struct Sidecar {
    addr: SocketAddr,
    metrics: SocketAddr,
    _process: Guarded,
}

impl Sidecar {
    async fn start(
        name: &'static str,
        program: &Path,
        engine: SocketAddr,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let port = format!("--model-server-port={}", engine.port());
        let args =
            ["sidecar", "--port=0", "--metrics-port=0", "--bind-address=127.0.0.1", "--print-addresses"];
        let own = [
            "--secure-proxy=false",
            "--kv-connector=nixlv2",
            "--on-prefill-failure=next",
            "--outcomes-in-metrics",
            &port,
        ];
        let mut process = Guarded::start(name, program, args.into_iter().chain(own), folder)?;
        let (addr, metrics) = process
            .until(async |process| {
                let output = process.output();
                let address = |name: &str| -> Option<SocketAddr> {
                    output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
                };
                Some((address("proxy")?, address("metrics")?))
            })
            .await?;
        Ok(Self { addr, metrics, _process: process })
    }
}

/// Bodies of the requests: long prompts with short answers and short prompts with long ones, in random order.
fn plan() -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(14);
    let mut order: Vec<bool> = (0..2 * LONG).map(|number| number % 2 == 0).collect();
    random.shuffle(&mut order);
    let body = |long: &bool| {
        let (words, tokens) = if *long { (LONG_WORDS, 8) } else { (20, SHORT_TOKENS) };
        load::chat(&load::words(&mut random, words), tokens)
    };
    order.iter().map(body).collect()
}

/// What came of a run.
struct Run {
    name: &'static str,
    answered: Vec<Measured>,
    failed: usize,
}

impl Run {
    async fn of(name: &'static str, envoy: &Envoy, bodies: &Arc<Vec<String>>) -> Self {
        let mut run = Self { name, answered: Vec::new(), failed: 0 };
        for result in load::send(bodies, &[envoy.addr]).await {
            match result {
                Ok(measured) => run.answered.push(measured),
                Err(_) => run.failed += 1,
            }
        }
        run
    }

    fn line(&self) -> String {
        let first: Vec<Duration> = self.answered.iter().filter_map(|answer| answer.first).collect();
        let whole: Vec<Duration> = self.answered.iter().map(|answer| answer.whole).collect();
        let gaps: Vec<Duration> =
            self.answered.iter().flat_map(|answer| answer.gaps.iter().copied()).collect();
        format!(
            "{:10}{:>10}{:>8}{:>12}{:>8}{:>12}{:>8}{:>8}{:>12}{:>8}",
            self.name,
            self.answered.len(),
            self.failed,
            millis(&first, 50),
            millis(&first, 95),
            millis(&gaps, 50),
            millis(&gaps, 95),
            millis(&gaps, 99),
            millis(&whole, 50),
            millis(&whole, 95)
        )
    }
}

fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "{:10}{:>10}{:>8}{:>20}{:>28}{:>20}\n{:10}{:>10}{:>8}{:>12}{:>8}{:>12}{:>8}{:>8}{:>12}{:>8}\n",
        "",
        "",
        "",
        "first token, ms",
        "between tokens, ms",
        "whole answer, ms",
        "",
        "answered",
        "failed",
        "p50",
        "p95",
        "p50",
        "p95",
        "p99",
        "p50",
        "p95"
    );
    for run in runs {
        let _ = writeln!(text, "{}", run.line());
    }
    text
}

/// The outcomes that sidecars have counted.
async fn outcomes(sidecars: &[Sidecar]) -> anyhow::Result<String> {
    let mut text = String::new();
    for (number, sidecar) in sidecars.iter().enumerate() {
        let page = page(sidecar.metrics, "/metrics").await?;
        let rows = page
            .lines()
            .filter(|line| line.starts_with("pointsman_sidecar_outcomes_total{") && !line.ends_with(" 0"));
        for row in rows {
            let _ = writeln!(text, "  sidecar {number}: {row}");
        }
    }
    Ok(text)
}

/// Plays the demo of split serving.
pub(super) async fn run(program: &Path, proxy: &Path, once: bool) -> anyhow::Result<()> {
    let (folder, bodies) = (Folder::make()?, Arc::new(plan()));
    let count = bodies.len();
    say(&format!(
        "{count} streamed chats, half of them with prompts of {LONG_WORDS} tokens and half with answers of {SHORT_TOKENS}, go through Envoy and\n\
         Pointsman to {} simulated vLLM servers.\n\n1. one pool: each server does all ...",
        2 * HALF
    ))?;
    let one_pool = {
        let fleet = Fleet::start_as("sim", program, 2 * HALF, &SERVERS, folder.path()).await?;
        let picker = Picker::start(program, ONE_POOL, &fleet, folder.path()).await?;
        let envoy = Envoy::start(proxy, &picker, folder.path()).await?;
        Run::of("one pool", &envoy, &bodies).await
    };
    say(&format!(
        "2. split: {HALF} servers process prompts, and {HALF} behind sidecars write the answers ..."
    ))?;
    let with_role = |role: &'static str| [&SERVERS[..], &["--role", role]].concat();
    let prefill = Fleet::start_as("prefill", program, HALF, &with_role("prefill"), folder.path()).await?;
    let decode = Fleet::start_as("decode", program, HALF, &with_role("decode"), folder.path()).await?;
    let mut sidecars = Vec::new();
    for (name, (_, engine)) in ["sidecar-0", "sidecar-1"].into_iter().zip(&decode.servers) {
        sidecars.push(Sidecar::start(name, program, *engine, folder.path()).await?);
    }
    let in_front: Vec<SocketAddr> = sidecars.iter().map(|sidecar| sidecar.addr).collect();
    let listed = [("prefill", prefill.addresses()), ("decode", in_front)];
    let picker = Picker::start_for(program, SPLIT, &with_roles(&listed), 2 * HALF, folder.path()).await?;
    let envoy = Envoy::start(proxy, &picker, folder.path()).await?;
    let split = Run::of("split", &envoy, &bodies).await;
    let failed = one_pool.failed + split.failed;
    say(&format!(
        "\n{}\nWhat the sidecars counted:\n{}",
        table(&[one_pool, split]),
        outcomes(&sidecars).await?
    ))?;
    let processed = metric(picker.metrics, "llm_d_epp_disagg_decision_total").await?;
    say(&format!("The picker decided {processed} times where a prompt is processed."))?;
    if !once {
        say(&format!("Everything is still running at http://{}; Ctrl-C stops it.", envoy.addr))?;
        super::super::stop::stop_signal().await;
    }
    anyhow::ensure!(failed == 0, "{failed} requests through Pointsman failed");
    Ok(())
}

/// An endpoints file of servers with roles.
fn with_roles(servers: &[(&str, Vec<SocketAddr>)]) -> String {
    let mut text = String::from("endpoints:\n");
    for (role, addresses) in servers {
        for (number, addr) in addresses.iter().enumerate() {
            let (ip, port) = (addr.ip(), addr.port());
            let _ = writeln!(
                text,
                "- {{name: {role}-{number}, address: \"{ip}\", port: \"{port}\", labels: {{llm-d.ai/role: {role}}}}}"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_half_long_and_the_same_every_time() {
        let bodies = plan();
        assert_eq!(bodies, plan());
        assert_eq!(bodies.iter().filter(|body| body.len() > 10_000).count(), LONG);
        assert!(bodies.iter().all(|body| body.contains("\"stream\":true")));
    }

    #[test]
    fn servers_are_listed_with_their_roles() {
        let text = with_roles(&[("prefill", vec!["127.0.0.1:5".parse().unwrap()])]);
        assert!(text.contains("port: \"5\", labels: {llm-d.ai/role: prefill}}"), "{text}");
    }
}
