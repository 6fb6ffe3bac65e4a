//! Filters of the first releases of the reference, which took trees of them in place of weighted scorers.
//!
//! `least-queue-filter` and `least-kv-cache-filter` keep the lowest part of the range that the endpoints in the running
//! have: up to `min + (max − min) / n` for `n` endpoints. `low-queue-filter` keeps queues of at most `threshold`.
//! `lora-affinity-filter` keeps the endpoints that have the adapter of the request, with the probability `threshold`;
//! else, and if nobody has it, those with room for one more. `decision-tree-filter` walks a tree of these and others.
//!
//! Use scorers instead: `queue-scorer`, `kv-cache-utilization-scorer` and `lora-affinity-scorer` weigh the same figures
//! against each other. Each filter costs one or two passes over the endpoints in the running.

pub mod decision_tree;
pub mod least;
pub mod lora_affinity;
pub mod low_queue;
