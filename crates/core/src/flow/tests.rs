//! Tests of the gate and its shell.

mod model;
mod pool;
mod shell;
mod vectors;
