//! `farrier simulate`: runs what stands in for the field.

mod fleet;

use std::path::PathBuf;
use std::process::ExitCode;

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
    /// Run one campaign with thousands of light vehicles, and hold the server's records against what they are.
    Fleet(Box<fleet::Fleet>),
}

impl Simulate {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Vehicle { config } => {
                run_vehicle(VehicleConfig::read(config)?).await.map(|()| ExitCode::SUCCESS)
            }
            Self::Fleet(fleet) => fleet.run().await,
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
