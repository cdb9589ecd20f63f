//! `farrier demo`: the whole system on one machine. A real server, real gateways, simulated ECUs; the update is
//! planned and followed through the operator API like any other.

mod progress;
mod stage;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use farrier_protocol::{EcuId, VehicleId};

use self::stage::Stage;
use crate::output::{bytes, print};
use crate::stop_signal::StopSignal;

/// Of its own binary the demo takes at most so many bytes, since every ECU of every vehicle gets them: all of a
/// release build, not all of a debug build.
const OWN_BINARY_MAX_BYTES: u64 = 32 * 1024 * 1024;

/// After so long the demo gives up and says where every vehicle is.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Args)]
pub(crate) struct Demo {
    /// How many vehicles are updated; ten and more go in three waves.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    vehicles: u8,

    /// How many ECUs each vehicle has.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=255))]
    ecus: u8,

    /// The file that every ECU gets as its image; without it this program's own binary (at most 32 MiB of
    /// it, after a line that names the ECU's hardware: so every ECU gets another image).
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,

    /// The ECU that fails while it is written, such as VEH_002:ecu_003. Without it one more vehicle has one.
    #[arg(long, value_name = "VEHICLE:ECU")]
    fail: Option<FailingEcu>,

    /// Leave everything running afterwards, until Ctrl-C.
    #[arg(long)]
    keep_running: bool,

    /// Print the outcome as JSON, and nothing else.
    #[arg(long)]
    json: bool,
}

/// `VEH_002:ecu_003`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FailingEcu {
    vehicle_id: VehicleId,
    ecu_id: EcuId,
}

impl FromStr for FailingEcu {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (vehicle, ecu) = text.split_once(':').ok_or("expected VEHICLE:ECU, such as VEH_002:ecu_003")?;
        Ok(Self {
            vehicle_id: vehicle.parse().map_err(|error| format!("vehicle: {error}"))?,
            ecu_id: ecu.parse().map_err(|error| format!("ECU: {error}"))?,
        })
    }
}

/// What will be played: worked out before anything is started.
struct Plan {
    vehicles: Vec<VehicleId>,
    ecus: u8,
    failing: FailingEcu,
    image: Image,
}

/// Where the bytes of the images come from.
struct Image {
    file: PathBuf,
    /// How many of its first bytes are taken.
    size_bytes: u64,
    /// Whether a line that names the hardware stands before them.
    names_hardware: bool,
}

impl Demo {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let mut stop = StopSignal::new()?;
        let plan = self.plan()?;
        self.say(&introduction(&plan))?;
        let mut stage = Stage::default();
        let outcome = tokio::select! {
            outcome = self.play(&plan, &mut stage) => outcome,
            () = stop.received() => Err(anyhow::anyhow!("stopped before the end; everything is cleaned up")),
        };
        if outcome.is_ok() && self.keep_running {
            self.say(&stage.how_to_look_around()?)?;
            stop.received().await;
        }
        // A second Ctrl-C must not leave the temporary folder behind.
        stage.clear().await;
        outcome.map(|all_as_expected| if all_as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let name = |number: u8| format!("VEH_{number:03}").parse::<VehicleId>();
        let mut vehicles = (1..=self.vehicles).map(name).collect::<Result<Vec<_>, _>>()?;
        let failing = match &self.fail {
            Some(failing) => failing.clone(),
            None => {
                let extra = name(self.vehicles + 1)?;
                vehicles.push(extra.clone());
                FailingEcu { vehicle_id: extra, ecu_id: format!("ecu_{:03}", self.ecus.div_ceil(2)).parse()? }
            }
        };
        ensure!(
            vehicles.contains(&failing.vehicle_id),
            "expected a vehicle from VEH_001 to VEH_{:03}, found {}; correct --fail",
            self.vehicles,
            failing.vehicle_id
        );
        let known = (1..=self.ecus).any(|number| failing.ecu_id.as_str() == format!("ecu_{number:03}"));
        ensure!(
            known,
            "expected an ECU from ecu_001 to ecu_{:03}, found {}; correct --fail",
            self.ecus,
            failing.ecu_id
        );
        Ok(Plan { vehicles, ecus: self.ecus, failing, image: self.image()? })
    }

    fn image(&self) -> anyhow::Result<Image> {
        let (file, max_bytes) = match &self.image {
            Some(file) => (file.clone(), u64::MAX),
            None => {
                let own = std::env::current_exe()
                    .context("cannot find this program's own file; name one by --image")?;
                (own, OWN_BINARY_MAX_BYTES)
            }
        };
        let found = std::fs::metadata(&file)
            .with_context(|| format!("cannot read the image {}; name a file that exists", file.display()))?;
        if !found.is_file() || found.len() == 0 {
            bail!("expected a file with content as the image, found {}; name another", file.display());
        }
        let names_hardware = self.image.is_none();
        Ok(Image { file, size_bytes: found.len().min(max_bytes), names_hardware })
    }

    async fn play(&self, plan: &Plan, stage: &mut Stage) -> anyhow::Result<bool> {
        let began = std::time::Instant::now();
        stage
            .set_up(plan, |done| self.say(&format!("{:>6.1} s  {done}", began.elapsed().as_secs_f64())))
            .await?;
        let followed = progress::follow(stage, began, PATIENCE, !self.json).await?;
        let outcome = summary::judge(plan, stage, &followed)?;
        if self.json {
            print(&serde_json::to_string(&outcome)?)?;
        } else {
            print(&outcome.text())?;
        }
        Ok(outcome.as_expected)
    }

    /// Tells people what happens; programs that asked for JSON get only that.
    fn say(&self, text: &str) -> anyhow::Result<()> {
        if self.json { Ok(()) } else { print(text) }
    }
}

fn introduction(plan: &Plan) -> String {
    format!(
        "Farrier demo: {} vehicles with {} ECUs each; the image of every ECU is {} of {}.\n\
         In {} the ECU {} fails while it is written: that vehicle must come back whole.\n",
        plan.vehicles.len(),
        plan.ecus,
        bytes(plan.image.size_bytes),
        plan.image.file.file_name().unwrap_or_default().to_string_lossy(),
        plan.failing.vehicle_id,
        plan.failing.ecu_id
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(fail: Option<&str>) -> Demo {
        Demo {
            vehicles: 3,
            ecus: 8,
            image: None,
            fail: fail.map(|text| text.parse().unwrap()),
            keep_running: false,
            json: false,
        }
    }

    #[test]
    fn by_default_one_more_vehicle_has_a_failing_ecu() {
        let plan = demo(None).plan().unwrap();
        assert_eq!(plan.vehicles.len(), 4);
        assert_eq!(plan.failing, "VEH_004:ecu_004".parse().unwrap());
    }

    #[test]
    fn a_chosen_ecu_fails_in_one_of_the_vehicles() {
        let plan = demo(Some("VEH_002:ecu_003")).plan().unwrap();
        assert_eq!(plan.vehicles.len(), 3);
    }

    #[test]
    fn an_ecu_that_is_not_there_is_refused_with_those_that_are() {
        for (fail, says) in
            [("VEH_004:ecu_001", "VEH_001 to VEH_003"), ("VEH_001:ecu_9", "ecu_001 to ecu_008")]
        {
            let error = demo(Some(fail)).plan().err().unwrap().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!("VEH_001".parse::<FailingEcu>().is_err());
    }
}
