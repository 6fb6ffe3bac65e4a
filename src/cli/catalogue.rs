//! `pointsman plugins` and `pointsman schema`: what a configuration may say.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use crate::config::{explain_plugin, json_schema, list_plugins};
use crate::plugins::Registry;

/// Flags of `plugins`.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct PluginsArgs {
    /// Plugin type to explain. Without a name, all types are listed
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Prints the list of types, or the page of one type.
pub(super) fn plugins(args: &PluginsArgs, registry: Registry) -> ExitCode {
    match args.name.as_deref().map(|name| explain_plugin(registry, name)) {
        None => print(&list_plugins(registry)),
        Some(Ok(text)) => print(&text),
        Some(Err(message)) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the JSON Schema of a configuration.
pub(super) fn schema(registry: Registry) -> ExitCode {
    print(&json_schema(registry))
}

/// Prints to standard output. A reader that has closed the pipe is not an error.
pub(super) fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("cannot write: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
