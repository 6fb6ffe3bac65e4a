//! Tests of the gate and its shell.

mod model;
mod pool;
mod reconfigure;
mod rivals;
mod shell;
mod vectors;
