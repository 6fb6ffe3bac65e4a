//! The commands of the program.

/// Their names, as people write them and miswrite them; anything else in their place is a flag of `serve`.
pub(super) const COMMANDS: [&str; 13] = [
    "serve", "sidecar", "check", "explain", "doctor", "migrate", "plugins", "schema", "sim", "simulate",
    "replay", "demo", "help",
];
