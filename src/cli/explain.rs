//! `pointsman explain`: asks a running picker why a request went where it went, and says it in words.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use http::Method;
use serde_json::Value;

use super::asking::{Answer, AskArgs};
use crate::decisions::explain::{Wanted, explain};
use crate::decisions::terminal::{shown, shown_all};
use crate::decisions::{DecisionView, ListView};

/// Flags of `explain`.
#[derive(Args, Clone, Debug)]
pub(super) struct ExplainArgs {
    /// Id of the request, as its header x-request-id has it
    #[arg(value_name = "REQUEST-ID", required_unless_present_any = ["last", "slowest", "refused", "request"])]
    id: Option<String>,
    /// Explain the last request that was decided
    #[arg(long, conflicts_with_all = ["id", "slowest", "refused"])]
    last: bool,
    /// Explain the slowest request that has a record
    #[arg(long, conflicts_with_all = ["id", "refused"])]
    slowest: bool,
    /// Explain the last request that was refused
    #[arg(long, conflicts_with = "id")]
    refused: bool,
    /// Explain where a request would go, without sending it. The file holds {path, headers, body} in JSON, or only a
    /// body. - reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "last", "slowest", "refused"])]
    request: Option<PathBuf>,
    /// Say why this endpoint was not picked. ENDPOINT is a name, NAMESPACE/NAME or ADDRESS:PORT
    #[arg(long, value_name = "ENDPOINT")]
    why_not: Option<String>,
    /// Print the record as JSON
    #[arg(long)]
    json: bool,
    /// Largest number of candidates to show
    #[arg(long, value_name = "N", default_value_t = 20)]
    rows: usize,
    #[command(flatten)]
    ask: AskArgs,
}

/// Explains, and prints to standard output.
pub(super) async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let record = fetch(&args).await?;
    let text = if args.json {
        serde_json::to_string_pretty(&record)? + "\n"
    } else {
        let view: DecisionView = serde_json::from_value(shown_all(record))
            .context("the picker's answer is no record of a decision")?;
        let why_not = args.why_not.as_deref().map(shown);
        explain(&view, Wanted { rows: args.rows, why_not: why_not.as_deref() })
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Nobody left to read the output is no fault.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn fetch(args: &ExplainArgs) -> anyhow::Result<Value> {
    if let Some(file) = &args.request {
        let request = described(file)?;
        return read(&args.ask.ask(Method::POST, "/debug/decide", request.into()).await?);
    }
    if let Some(id) = &args.id {
        return read(&args.ask.get(&format!("/debug/decisions/{}", escaped(id))).await?);
    }
    let query = match (args.slowest, args.refused) {
        (true, _) => "sort=slowest&limit=1",
        (_, true) => "outcome=refused&limit=1",
        _ => "limit=1",
    };
    let list = read(&args.ask.get(&format!("/debug/decisions?{query}")).await?)?;
    let list: ListView =
        serde_json::from_value(list).context("the picker's answer is no list of decisions")?;
    let Some(first) = list.decisions.first() else { bail!("no such request is on record") };
    let path = format!("/debug/decisions/@{}", first.sequence);
    read(&args.ask.get(&path).await?)
}

/// Largest file that is read: what the picker takes.
const LARGEST: u64 = 2 << 20;

/// The request that a file describes. A body alone is put into a description.
fn described(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let opened: Box<dyn io::Read> = if file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(file).with_context(|| format!("cannot read {}", file.display()))?)
    };
    opened
        .take(LARGEST + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("cannot read {}", file.display()))?;
    let document: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
    let known = ["path", "headers", "body", "subset", "model", "prompt_tokens", "prefix_hashes"];
    let is_description = document
        .as_object()
        .is_some_and(|fields| !fields.is_empty() && fields.keys().all(|name| known.contains(&name.as_str())));
    if is_description { Ok(text) } else { Ok(serde_json::json!({ "body": document }).to_string()) }
}

/// The document of a good answer. The text of another one is shown without anything that a terminal acts on.
fn read(answer: &Answer) -> anyhow::Result<Value> {
    if answer.status != 200 {
        bail!("{}: {}", answer.status, shown(String::from_utf8_lossy(&answer.body).trim()));
    }
    serde_json::from_slice(&answer.body).context("the picker's answer is no JSON")
}

/// Text as it stands in a path.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_hold_anything() {
        assert_eq!(escaped("a/b?c\u{1b}é"), "a%2Fb%3Fc%1B%C3%A9");
        assert_eq!(escaped("0f3a-1.x_~"), "0f3a-1.x_~");
    }
}
