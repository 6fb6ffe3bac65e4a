//! The command line: `serve` (the default), `sidecar`, `check`, `explain`, `doctor`, `migrate`, `plugins`, `schema`,
//! `sim`, `simulate`, `replay`, `demo`.

mod arguments;
mod asking;
mod autoscaling;
mod background;
mod capturing;
mod catalogue;
mod check;
mod commands;
mod deciding;
mod demo;
mod doctor;
mod drain;
mod dry_runs;
mod engine;
mod exit;
mod explain;
mod fit;
mod flags;
#[cfg(test)]
mod flags_tests;
mod holding;
mod hooks;
mod kubernetes;
mod live;
mod loading;
mod migrate;
mod older_flags;
mod output;
mod overrides;
mod peer_flags;
mod peering;
mod queueing;
mod reload;
mod replay;
mod report;
mod running;
mod scrape_series;
mod scraping;
mod serve;
mod settings;
mod shadow_flags;
mod shadowing;
mod sidecar;
mod simulate;
mod sockets;
mod state_dir;
mod stop;
mod thread;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, FromArgMatches, Parser, Subcommand};

use crate::plugins::{REGISTRY, Registry};
use commands::COMMANDS;
use exit::USAGE_ERROR;
use stop::stop_signal;

pub use flags::{MessageSize, ServeFlags};

#[derive(Debug, Parser)]
#[command(
    name = "pointsman",
    version,
    about = "Endpoint picker for LLM inference pools: Envoy asks, and Pointsman picks the model server for each request",
    after_help = "Without a command, pointsman serves. `pointsman serve --help` lists the flags of serving.\n\
                  The README has the first steps, and its list of pages says which page answers which question."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve ext_proc. This is the default without a command.
    Serve(Box<ServeFlags>),
    /// Stand in front of a model server and split requests: prefill on one server, decode on another.
    #[command(disable_help_flag = true)]
    Sidecar(SidecarArgs),
    /// Check a configuration without serving.
    Check(check::CheckArgs),
    /// Say why a request was sent to its model server, or why it was refused.
    Explain(Box<explain::ExplainArgs>),
    /// Say what is wrong with an installation, why it matters and what mends it.
    Doctor(Box<doctor::DoctorArgs>),
    /// Rewrite the former forms of a configuration into today's, and keep its comments.
    Migrate(migrate::MigrateArgs),
    /// List the plugin types, or explain one with its parameters.
    Plugins(catalogue::PluginsArgs),
    /// Print the JSON Schema of a configuration, with the parameters of every plugin type.
    Schema,
    /// Simulate vLLM servers.
    Sim(pointsman_sim::SimArgs),
    /// Compare configurations: play a request trace against simulated servers in virtual time.
    Simulate(Box<simulate::SimulateArgs>),
    /// Make the decisions of a capture again, or compare them with those of another configuration.
    Replay(replay::ReplayArgs),
    /// Compare Pointsman with turns: a real Envoy, and four simulated servers.
    Demo(demo::DemoArgs),
}

/// An entry in the list of commands. `sidecar::command` reads the flags.
#[derive(Debug, Args)]
struct SidecarArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

/// Runs the program with these arguments, program name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    run_with(arguments, REGISTRY)
}

/// Runs the program with these arguments, program name first, and these plugin types: see
/// [`crate::plugins::registry_with`].
pub fn run_with(arguments: impl IntoIterator<Item = OsString>, registry: Registry) -> ExitCode {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(tool) = arguments.first().and_then(|program| hooks::Tool::called(program)) {
        return tool.run(&arguments[1..]);
    }
    if arguments.first().is_some_and(|program| sidecar::called(program)) {
        let own = arguments.get(1).is_some_and(|first| first == "sidecar");
        return sidecar::command(&arguments[if own { 2 } else { 1 }..]);
    }
    if arguments.get(1).is_some_and(|first| first == "sidecar") {
        return sidecar::command(&arguments[2..]);
    }
    let first = arguments.get(1).and_then(|argument| argument.to_str()).unwrap_or("serve").to_owned();
    if COMMANDS.contains(&first.as_str()) && first != "serve"
        || matches!(first.as_str(), "--version" | "-V" | "--help" | "-h")
    {
        let parsed = Cli::try_parse_from(arguments).unwrap_or_else(|error| refuse(&first, &error));
        return match parsed.command {
            Command::Serve(_) => ExitCode::from(USAGE_ERROR),
            Command::Sidecar(args) => sidecar::command(&args.flags),
            Command::Check(args) => check::run(&check::CheckArgs { registry: Some(registry), ..args }),
            Command::Explain(args) => run_async(explain::run(*args)),
            Command::Doctor(args) => {
                run_async(doctor::run(doctor::DoctorArgs { registry: Some(registry), ..*args }))
            }
            Command::Migrate(args) => migrate::run(&args, registry),
            Command::Plugins(args) => catalogue::plugins(&args, registry),
            Command::Schema => catalogue::schema(registry),
            Command::Sim(args) => {
                run_async(async { pointsman_sim::run(args, stop_signal()).await.map(|()| ExitCode::SUCCESS) })
            }
            Command::Simulate(args) => simulate::run(&args, registry),
            Command::Replay(args) => replay::run(&args, registry),
            Command::Demo(args) => run_async(async { demo::run(args).await.map(|()| ExitCode::SUCCESS) }),
        };
    }
    if first == "serve" && arguments.len() > 1 {
        arguments.remove(1);
    }
    serve(arguments, registry)
}

fn serve(arguments: Vec<OsString>, registry: Registry) -> ExitCode {
    let command = clap::Command::new("pointsman serve").version(env!("CARGO_PKG_VERSION")).after_help(
        "Other commands: pointsman sidecar, check, explain, doctor, migrate, plugins, schema, sim, simulate, replay, demo; each with --help.",
    );
    let command = ServeFlags::augment_args(command)
        .about("Serves ext_proc: Envoy asks, and Pointsman picks the model server for each request")
        .long_about(None)
        // As in Go, the last of several counts: charts append what the operator sets to what they set themselves.
        .args_override_self(true);
    let readable = arguments::make_readable(arguments, &command);
    if !readable.problems.is_empty() {
        for problem in &readable.problems {
            eprintln!("{problem}");
        }
        return ExitCode::from(USAGE_ERROR);
    }
    let flags = match command.try_get_matches_from(readable.arguments) {
        Ok(matches) => match ServeFlags::from_arg_matches(&matches) {
            Ok(flags) => ServeFlags { registry, ..flags },
            Err(error) => error.exit(),
        },
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => {
            eprint!("{error}");
            return ExitCode::from(USAGE_ERROR);
        }
    };
    serve::run(&flags, &readable.older, &readable.warnings)
}

/// Says what is wrong with a command line, and ends. The exit code 2 of most commands means something else for doctor.
fn refuse(command: &str, error: &clap::Error) -> ! {
    if command == "doctor" && error.use_stderr() {
        eprint!("{error}");
        std::process::exit(i32::from(USAGE_ERROR));
    }
    error.exit()
}

fn run_async(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(work) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
