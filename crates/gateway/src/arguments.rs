//! What `farrier-gateway` is asked for on its command line. It is here so that `farrier` can write its man pages and
//! completions: the small binary itself has no code for that.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The agent on a vehicle's gateway: updates the vehicle's ECUs, all of them or none.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// The settings, TOML.
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Without one the gateway runs.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What it can be asked for while another one runs, or before.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Looks at settings, certificates, journal, topology and ECUs, and says what to do; fails if anything is wrong.
    Check,
    /// Says what the gateway at work is doing; fails if none is.
    Status {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}
