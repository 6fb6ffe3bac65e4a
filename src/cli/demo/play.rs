//! The steps of the demo, in order.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::load::{self, PREFIXES, Plan, REQUESTS, WARM_UP};
use super::stack::{Envoy, Fleet, Folder, Picker};
use super::table::{self, Run, say};

/// The reference's default, which is the built-in one.
pub(super) const DEFAULT: &str = include_str!("../../../config/default.yaml");
/// What the figures of `docs/routing-quality.md` recommend.
pub(super) const RECOMMENDED: &str = include_str!("../../../config/recommended.yaml");

/// Simulated servers.
const SERVERS: usize = 4;

/// A real Envoy, this program and simulated model servers on this machine.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// The Envoy program: a path, or a name in PATH.
    #[arg(long, default_value = "envoy")]
    pub(crate) envoy: PathBuf,
    /// Stop after the table instead of leaving everything running.
    #[arg(long)]
    pub(crate) once: bool,
    /// Plays one pool against split serving: prompts on servers of their own, sidecars in front of the others.
    #[arg(long)]
    pub(crate) split: bool,
}

/// Plays the demo. Fails when a program cannot be started or a request through Pointsman failed.
pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    if args.split {
        return super::split::run(&program, &args.envoy, args.once).await;
    }
    let folder = Folder::make()?;
    let plan = load::plan();
    say(&format!(
        "{REQUESTS} chat requests, half of them streamed, with {PREFIXES} shared prefixes of 2000 tokens, go to {SERVERS} simulated vLLM servers.\n\
         Each server remembers about a quarter of the prefixes; the last one is kept busy by other clients.\n\
         {WARM_UP} requests come before them, which fill the caches and do not count.\n\n\
         1. by turns, straight to the servers ..."
    ))?;
    let by_turns = by_turns(&program, &plan, folder.path()).await?;
    say("2. through Envoy and Pointsman with the default configuration, to fresh servers ...")?;
    let default = {
        let fleet = Fleet::start(&program, SERVERS, folder.path()).await?;
        let picker = Picker::start(&program, DEFAULT, &fleet, folder.path()).await?;
        let envoy = Envoy::start(&args.envoy, &picker, folder.path()).await?;
        measure("default", &fleet, &plan, &[envoy.addr]).await?
    };
    say("3. the same with the recommended configuration, to fresh servers ...")?;
    let fleet = Fleet::start(&program, SERVERS, folder.path()).await?;
    let picker = Picker::start(&program, RECOMMENDED, &fleet, folder.path()).await?;
    let envoy = Envoy::start(&args.envoy, &picker, folder.path()).await?;
    let picked = measure("recommended", &fleet, &plan, &[envoy.addr]).await?;

    let names: Vec<String> = fleet.servers.iter().map(|(name, _)| name.clone()).collect();
    let failed = default.failed + picked.failed;
    say(&format!("\n{}", table::write(&names, &[by_turns, default, picked])))?;
    if !args.once {
        say(&hints(&envoy, &picker, &fleet))?;
        super::super::stop::stop_signal().await;
    }
    anyhow::ensure!(failed == 0, "{failed} requests through Pointsman failed");
    Ok(())
}

async fn by_turns(program: &Path, plan: &Plan, folder: &Path) -> anyhow::Result<Run> {
    let fleet = Fleet::start(program, SERVERS, folder).await?;
    measure("round robin", &fleet, plan, &fleet.addresses()).await
}

async fn measure(
    name: &'static str,
    fleet: &Fleet,
    plan: &Plan,
    targets: &[std::net::SocketAddr],
) -> anyhow::Result<Run> {
    let others = fleet.servers.last().map(|(_, busy)| load::keep_busy(*busy));
    load::send(&plan.warm_up, targets).await;
    let (looked_for_before, found_before) = fleet.cache_counts().await?;
    let results = load::send(&plan.bodies, targets).await;
    let (looked_for, found) = fleet.cache_counts().await?;
    drop(others);
    let mut run = Run { name, answered: Vec::new(), failed: 0, cached: 0.0 };
    for result in results {
        match result {
            Ok(measured) => run.answered.push(measured),
            Err(_) => run.failed += 1,
        }
    }
    run.cached = (found - found_before) / (looked_for - looked_for_before).max(1.0);
    Ok(run)
}

fn hints(envoy: &Envoy, picker: &Picker, fleet: &Fleet) -> String {
    let entry = envoy.addr;
    let server = fleet.servers.first().map(|(_, addr)| addr.to_string()).unwrap_or_default();
    format!(
        "Everything is still running; Ctrl-C stops it. What the picker sees and decides, in a browser: http://{}/

To try:

  curl -si http://{entry}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{\"model\":\"sim-model\",\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}],\"max_tokens\":8}}'     # x-sim-server names who answered
  curl -sN http://{entry}/v1/completions -H 'content-type: application/json' \\
    -d '{{\"model\":\"sim-model\",\"prompt\":\"hello\",\"max_tokens\":20,\"stream\":true}}'
  curl -s http://{entry}/v1/models
  curl -s http://{}/metrics | grep ^llm_d_epp_
  curl -s http://{server}/sim/faults -d '{{\"hang\":true,\"hang_metrics\":true}}'     # the first server stands still; false wakes it
  curl -s http://{}/stats | grep ext_proc     # Envoy's own view
",
        picker.metrics, picker.metrics, envoy.admin
    )
}
