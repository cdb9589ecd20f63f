//! `farrier simulate`: runs what stands in for the field.

use std::path::PathBuf;

use clap::Subcommand;
use farrier_simulator::vehicle::{SimulatedVehicle, VehicleConfig};

use crate::output::print;
use crate::stop_signal::StopSignal;

#[derive(Subcommand)]
pub(crate) enum Simulate {
    /// Run one vehicle: simulated ECUs and the real gateway. Its state survives restarts in a folder.
    Vehicle {
        /// The vehicle's configuration, TOML.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

impl Simulate {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Vehicle { config } => run_vehicle(VehicleConfig::read(config)?).await,
        }
    }
}

async fn run_vehicle(config: VehicleConfig) -> anyhow::Result<()> {
    let mut stop = StopSignal::new()?;
    let mut vehicle = SimulatedVehicle::start(config).await?;
    let config = vehicle.config();
    print(&format!(
        "Vehicle {} with {} ECUs looks for its server at {}; its signals are in {}. Ctrl-C stops it.",
        config.binding(),
        config.ecus().count(),
        config.server,
        config.readiness_signals().display()
    ))?;
    tokio::select! {
        () = stop.received() => {}
        ended = vehicle.stopped() => ended?,
    }
    Ok(vehicle.stop().await?)
}
