//! The vehicles' side of a connection with as little as possible around it: what the benches and the simulated fleet
//! are made of, so that thousands fit into one process.

pub(crate) mod http;
pub(crate) mod mqtt;
pub(crate) mod tls;
