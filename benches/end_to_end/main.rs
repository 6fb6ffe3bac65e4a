//! Pointsman beside a floor server that decides nothing, over loopback gRPC: throughput, latency, CPU and memory by
//! scenario.
//!
//! Three child processes take part, so that CPU and memory can be told apart: the program itself, the floor, and a
//! fleet of model servers that serve nothing but metrics pages. Absolute figures drift with the machine; the ratios are
//! what to keep.
//!
//! `cargo bench --bench end_to_end`, or with names of scenarios behind `--` to run only those.

#![allow(unreachable_pub, reason = "a bench exports nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench that cannot run must stop"
)]
#![allow(clippy::print_stdout, reason = "the table is the result")]

mod fleet;
mod floor;
mod load;
mod process;

use std::time::Duration;

use load::{Load, Outcome};
use process::{Child, Usage};

/// Seconds that each scenario is measured.
const MEASURE: Duration = Duration::from_secs(6);

/// One row of the table.
struct Scenario {
    name: &'static str,
    endpoints: usize,
    load: Option<Load>,
    budget: &'static str,
}

fn scenarios() -> Vec<Scenario> {
    let small = Load { prompt_bytes: 800, shared_bytes: 400, ..Load::default() };
    vec![
        Scenario { name: "idle-10", endpoints: 10, load: None, budget: "≤ 0.02 cores" },
        Scenario { name: "idle-100", endpoints: 100, load: None, budget: "≤ 0.10 cores" },
        Scenario { name: "idle-1000", endpoints: 1000, load: None, budget: "≤ 0.5 cores" },
        Scenario {
            name: "closed-32",
            endpoints: 10,
            load: Some(Load { streams: 32, ..small }),
            budget: "≥ 0.5 of the floor's requests/s; ≤ 60 µs/request",
        },
        Scenario {
            name: "open-500",
            endpoints: 10,
            load: Some(Load { rate: 500.0, ..small }),
            budget: "≤ 0.09 cores; p50 ≤ 0.20, p99 ≤ 0.60 ms",
        },
        Scenario {
            name: "open-200-of-100",
            endpoints: 100,
            load: Some(Load { rate: 200.0, ..small }),
            budget: "≤ 0.15 cores; p50 ≤ 0.35, p99 ≤ 1.0 ms",
        },
        Scenario {
            name: "open-100-of-1000",
            endpoints: 1000,
            load: Some(Load { rate: 100.0, ..small }),
            budget: "p99 < 2 ms",
        },
        Scenario {
            name: "prompts-400k",
            endpoints: 10,
            load: Some(Load { rate: 10.0, prompt_bytes: 400_000, shared_bytes: 200_000, ..small }),
            budget: "≤ 1.5 ms CPU/request",
        },
        Scenario {
            name: "prompts-220k-closed-16",
            endpoints: 10,
            load: Some(Load { streams: 16, prompt_bytes: 220_000, shared_bytes: 110_000, ..small }),
            budget: "≥ 0.8 of the floor's requests/s; ≤ 0.8 ms CPU/request; peak ≤ 60 MB",
        },
        Scenario {
            name: "chunks-1000",
            endpoints: 10,
            load: Some(Load { rate: 10.0, response_chunks: 1000, ..small }),
            budget: "≤ 2.0 ms CPU/request",
        },
    ]
}

fn main() {
    match std::env::var(process::ROLE).as_deref() {
        Ok("floor") => return floor::run(),
        Ok("fleet") => return fleet::run(),
        _ => {}
    }
    // `cargo test` runs benches too, with `--test`; there is nothing to prove then.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let fleet = Child::fleet();
        let floor = Child::floor();
        println!("{:<24} {:<10} figures", "scenario", "server");
        for scenario in scenarios() {
            if wanted.is_empty() || wanted.iter().any(|name| scenario.name.starts_with(name.as_str())) {
                run(&scenario, &fleet, &floor).await;
            }
        }
        start_up(&fleet).await;
    });
}

async fn run(scenario: &Scenario, fleet: &Child, floor: &Child) {
    let server = Child::pointsman(fleet.port(), scenario.endpoints);
    server.wait_until_fresh(scenario.endpoints).await;
    let ours = measure(&server, scenario.load).await;
    println!("{:<24} {:<10} {}", scenario.name, "pointsman", describe(&ours, scenario.load.is_some()));
    if let Some(load) = scenario.load {
        let theirs = measure(floor, Some(load)).await;
        println!("{:<24} {:<10} {}", "", "floor", describe(&theirs, true));
        println!(
            "{:<24} {:<10} {:.2} × requests/s, {:.2} × CPU/request, {:.2} × p50, {:.2} × p99",
            "",
            "ratio",
            ours.0.per_second / theirs.0.per_second,
            ours.cpu_per_request() / theirs.cpu_per_request(),
            ours.0.p50_ms / theirs.0.p50_ms,
            ours.0.p99_ms / theirs.0.p99_ms,
        );
    }
    println!("{:<24} {:<10} {}", "", "budget", scenario.budget);
}

struct Measured(Outcome, Usage);

impl Measured {
    fn cpu_per_request(&self) -> f64 {
        self.1.cpu.as_secs_f64() * 1e6 / self.0.requests.max(1) as f64
    }
}

async fn measure(server: &Child, load: Option<Load>) -> Measured {
    let Some(load) = load else {
        // A second for the first scrapes, which are dearer.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = server.usage();
        tokio::time::sleep(MEASURE).await;
        return Measured(Outcome::default(), server.usage().since(&before));
    };
    load.run(server.port(), Duration::from_secs(2)).await;
    let before = server.usage();
    let outcome = load.run(server.port(), MEASURE).await;
    Measured(outcome, server.usage().since(&before))
}

fn describe(measured: &Measured, loaded: bool) -> String {
    let Measured(outcome, usage) = measured;
    let cores = usage.cpu.as_secs_f64() / MEASURE.as_secs_f64();
    let memory = format!("{} MB, peak {} MB", usage.resident_mb, usage.peak_mb);
    if !loaded {
        return format!("{cores:.3} cores, {memory}");
    }
    format!(
        "{:.0} requests/s, {:.0} µs CPU/request, {cores:.3} cores, p50 {:.2} ms, p99 {:.2} ms, {memory}, {} failed",
        outcome.per_second,
        measured.cpu_per_request(),
        outcome.p50_ms,
        outcome.p99_ms,
        outcome.failed,
    )
}

/// Time from the start of the process to its first right answer.
async fn start_up(fleet: &Child) {
    let started = std::time::Instant::now();
    let server = Child::pointsman(fleet.port(), 10);
    let one = Load { streams: 1, ..Load::default() };
    while one.once(server.port()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!(
        "{:<24} {:<10} {:.0} ms to the first answer (budget ≤ 300)",
        "start",
        "pointsman",
        started.elapsed().as_secs_f64() * 1e3
    );
    println!("{:<24} {:<10} {:.1} MB", "binary", "pointsman", process::binary_mb());
}
