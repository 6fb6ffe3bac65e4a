//! `pointsman doctor`: looks at a running picker, its model servers, the cluster and Envoy, and says what is wrong.
//!
//! The rules are in [`crate::doctor`]; here the facts are gathered, each with a bound on time and bytes.

mod args;
mod cluster;
mod engines;
mod envoy;
pub(super) mod files;
mod gathered;
mod pickers;
mod report;
mod unnamed;

use std::process::ExitCode;

use serde_json::Value;

use crate::doctor::waits::Waits;
use crate::doctor::{self, picker::PickerFacts};
pub(super) use args::DoctorArgs;
use gathered::Gathered;
use report::Report;

/// Address that is asked where none is given.
const USUAL: &str = "http://127.0.0.1:9090";

/// Looks, and prints to standard output.
pub(super) async fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut gathered = Gathered::default();
    let pickers = ask_pickers(&args, &mut gathered).await;
    let mut effective =
        pickers.first().map(|picker| files::document(&picker.config["effective"])).unwrap_or_default();
    if let Some(file) = &args.config_file {
        let (written, findings) = files::configuration(file, args.registry);
        gathered.looked_at.push(format!("configuration {}", file.display()));
        gathered.findings.extend(findings);
        if effective.is_null() {
            effective = written;
        }
    }
    let waits = Waits::of(&effective);
    if let Some(picker) = pickers.first() {
        look_at_engines(picker, &effective, &mut gathered).await;
    }
    if let Some(path) = &args.kubeconfig {
        cluster::look(&args, path, pickers.first(), waits, &mut gathered).await;
    }
    gathered.findings.extend(doctor::replicas::findings(&gathered.replicas));
    if let Some(url) = &args.envoy_admin {
        envoy::look(url, waits, &mut gathered).await;
    }
    for path in &args.monitoring {
        gathered.looked_at.push(format!("monitoring {}", path.display()));
        gathered.findings.extend(files::monitoring(path));
    }
    Ok(Report::of(gathered).print(args.json)?)
}

/// Asks each replica, and those that they follow.
async fn ask_pickers(args: &DoctorArgs, gathered: &mut Gathered) -> Vec<PickerFacts> {
    let urls = if args.url.is_empty() { vec![USUAL.to_owned()] } else { args.url.clone() };
    let mut pickers = Vec::new();
    for url in urls.iter().filter(|url| !url.is_empty()) {
        match pickers::ask(&args.ask(url)).await {
            Ok((facts, replica)) => {
                gathered.looked_at.push(format!("picker {url}"));
                gathered.findings.extend(doctor::picker::findings(&facts));
                gathered.findings.extend(doctor::configuration::running(url, &facts.config));
                gathered.findings.extend(doctor::monitoring::absent(url, &facts.after, &facts.pool));
                pickers.push(facts);
                gathered.replicas.push(replica);
            }
            Err(_) if args.url.is_empty() && args.names_more() => {
                gathered.skipped.push(format!("no picker answers at {url}; --url names one"));
            }
            Err(error) => gathered.findings.push(doctor::picker::UNREACHABLE.found(
                url,
                format!("{error:#}"),
                "`--url http://HOST:9090`, with `kubectl port-forward` if need be, and `--token-file FILE` where callers have to say who they are",
            )),
        }
    }
    unnamed::ask(args, unnamed::peers(&pickers), gathered).await;
    pickers
}

async fn look_at_engines(picker: &PickerFacts, effective: &Value, gathered: &mut Gathered) {
    let engines = engines::ask(picker, effective).await;
    let read = engines.iter().filter(|engine| engine.page.is_some()).count();
    if read > 0 {
        gathered.looked_at.push(format!("{read} model server{}", if read == 1 { "" } else { "s" }));
    }
    let unread = engines.len() - read;
    if unread > 0 {
        gathered.skipped.push(format!("{unread} model servers show their metrics page not to this machine"));
    }
    let all = picker.endpoints().count();
    if all > engines.len() {
        gathered.skipped.push(format!(
            "{} of {all} model servers, beyond the first {}",
            all - engines.len(),
            engines.len()
        ));
    }
    gathered.findings.extend(doctor::engines::findings(&engines, effective));
}
