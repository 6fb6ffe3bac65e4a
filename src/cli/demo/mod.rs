//! `pointsman demo`: a real Envoy, this program and simulated model servers on this machine, and a table of what
//! picking is worth.
//!
//! The same requests are sent three times to four servers, one of which is kept busy by others: straight to the servers
//! by turns, then through Envoy and Pointsman with the default configuration, and with the recommended one. [`load`] plans and sends them, [`client`] measures one, [`stack`] starts
//! the programs, each behind a [`child`] guard, and [`table`] writes what came out. [`split`] plays one pool against split
//! serving.

mod child;
mod client;
mod load;
mod play;
mod split;
mod stack;
mod table;

pub(crate) use play::{DemoArgs, run};
