//! Profile handlers: one file a plugin.

pub mod single;
