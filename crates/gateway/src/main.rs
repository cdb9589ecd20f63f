//! `farrier-gateway --config FILE`: runs until SIGTERM or SIGINT.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use farrier_gateway::{Gateway, GatewayConfig, with_causes};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The agent on a vehicle's gateway: updates the vehicle's ECUs, all of them or none.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The settings, TOML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farrier-gateway: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = GatewayConfig::read(&arguments.config)?;
    let mut gateway = Gateway::start(config).await?;
    tokio::select! {
        failure = gateway.stopped() => Ok(failure?),
        _ = terminate.recv() => Ok(gateway.stop().await?),
        _ = interrupt.recv() => Ok(gateway.stop().await?),
    }
}
