//! Tests of the gate and its shell.

mod model;
mod pool;
mod rivals;
mod shell;
mod vectors;
