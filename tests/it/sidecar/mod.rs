//! `pointsman sidecar` as a process in front of stub engines: what it sends them, what the client gets, and what is left
//! when something fails.

mod access;
mod commands;
mod concurrent;
mod connectors;
mod failures;
mod passing;
mod policies;
mod running;
mod split;
mod stub;
