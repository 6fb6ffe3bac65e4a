//! Deciders: one file a plugin. Each says whether a stage of a request goes to a server of its own; a profile handler
//! asks it.

pub mod always;
pub mod multimodal;
pub mod prefix_based;
