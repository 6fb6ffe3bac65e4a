//! Exit codes of the program.

/// Exit code of a command line or configuration that cannot be used.
pub(super) const USAGE_ERROR: u8 = 64;
