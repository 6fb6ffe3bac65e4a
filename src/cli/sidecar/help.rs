//! The text of `pointsman sidecar --help`.

use super::flags::{FLAGS, Flag};

/// The text of the usage: what the command does, its flags, and the names of flags of earlier versions.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Proxy in front of a model server that splits requests: prefill on one server, decode on another, images on a third\n\n\
         Usage: pointsman sidecar [FLAGS]\n\nFlags:\n",
    );
    for flag in FLAGS.iter().filter(|flag| flag.deprecated.is_none()) {
        text.push_str(&line(flag));
    }
    text.push_str("  --help\n      Print this text.\n\nFlags of earlier versions:\n");
    for flag in FLAGS {
        if let Some(today) = flag.deprecated {
            text.push_str(&format!("  --{}\n      Deprecated. Today: {today}.\n", flag.name));
        }
    }
    text
}

fn line(flag: &Flag) -> String {
    let mut notes = Vec::new();
    if !flag.default.is_empty() {
        notes.push(format!("default: {}", flag.default));
    }
    if let Some(name) = flag.env {
        notes.push(format!("env: {name}"));
    }
    let notes = if notes.is_empty() { String::new() } else { format!(" [{}]", notes.join(", ")) };
    format!("  --{}\n      {}{notes}\n", flag.name, flag.about)
}
