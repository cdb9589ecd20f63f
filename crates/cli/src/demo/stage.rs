//! Everything that the demo sets up, and clears away again: folder, certificates, server, vehicles, campaign.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use farrier_gateway::Status;
use farrier_protocol::{Binding, Text, VehicleId};
use farrier_server::pki::{LEAF_VALIDITY, Pki};
use farrier_server::{Enroll, RunningServer, Server, ServerConfig};
use farrier_simulator::vehicle::{ControllerConfig, SimulatedVehicle, VehicleConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Image, Plan};
use crate::operator::{Operator, OperatorArgs};
use crate::output::now;
use crate::release::{ImageArg, RulesArgs};
use crate::release_key::ReleaseKey;
use crate::{campaign, release};

/// What the ECUs run at first.
pub(super) const FACTORY_VERSION: &str = "1.0.0";
/// What they shall run.
pub(super) const NEW_VERSION: &str = "2.0.0";
/// The campaign that the demo runs.
pub(super) const CAMPAIGN: &str = "demo";
const RELEASE: &str = "demo-2.0.0";

/// How long the vehicles may take until the server knows them all.
const ARRIVAL: Duration = Duration::from_secs(60);

/// What has been set up so far.
#[derive(Default)]
pub(super) struct Stage {
    folder: Option<TempDir>,
    server: Option<RunningServer>,
    pub(super) vehicles: Vec<SimulatedVehicle>,
}

/// Many vehicles go in three waves: two vehicles or a tenth of them, three tenths, the rest. The one whose ECU fails may be in any
/// wave, so half of a wave is enough for the next.
fn three_waves(vehicles: usize) -> Option<Value> {
    const MANY: usize = 10;
    (vehicles >= MANY).then(|| {
        json!({"waves": [
            {"size": {"vehicles": (vehicles / 10).max(2)}},
            {"size": {"percent": 30}, "opens": {"after_success_percent": 50}},
            {"size": "rest", "opens": {"after_success_percent": 50}},
        ]})
    })
}

impl Stage {
    /// Sets everything up to the started campaign, and tells what is done.
    pub(super) async fn set_up(
        &mut self,
        plan: &Plan,
        tell: impl Fn(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let folder = tempfile::Builder::new().prefix("farrier-demo-").tempdir();
        let folder = self.folder.insert(folder.context("cannot make a temporary folder")?).path().to_owned();
        let images = write_images(plan, &folder)?;
        let pki = Pki::init(&folder.join("pki"), false, now())?;
        tell("made a certificate authority and a release key")?;

        let server = Server::start(server_config(&folder)).await?;
        let mqtt = server.mqtt.context("the server of the demo has an MQTT endpoint of its own")?;
        tell(&format!(
            "server listens: MQTT {mqtt}, HTTPS {}, operators {}",
            server.https, server.operator_url
        ))?;
        self.server = Some(server);

        for vehicle_id in &plan.vehicles {
            let config = vehicle_config(plan, vehicle_id, &folder, mqtt.port())?;
            pki.issue_vehicle(&config.binding(), &config.certificates, LEAF_VALIDITY, false, now())?;
            self.vehicles.push(SimulatedVehicle::start(config).await?);
        }
        let operator = self.operator()?;
        self.all_vehicles_known(&operator).await?;
        tell(&format!("{} vehicles are connected", self.vehicles.len()))?;

        let key = ReleaseKey::load(&pki.release_key())?;
        release::create(&operator, RELEASE, &images, &RulesArgs::default(), Some(&key)).await?;
        tell(&format!("release {RELEASE} is signed and on the server"))?;
        let waves = three_waves(plan.vehicles.len());
        let how = if waves.is_some() { ", in three waves" } else { "" };
        campaign::create(&operator, CAMPAIGN, RELEASE, &[], [("rollout", waves)]).await?;
        campaign::start(&operator, CAMPAIGN).await?;
        tell(&format!("campaign {CAMPAIGN} has started{how}"))
    }

    /// A client of the operator API with the server's first token.
    pub(super) fn operator(&self) -> anyhow::Result<Operator> {
        let server = self.server.as_ref().context("the server does not run")?;
        Ok(Operator::new(&OperatorArgs {
            server: server.operator_url.clone(),
            token: None,
            token_file: Some(server.operator_token.clone()),
            ca: server.operator_ca.clone(),
            json: true,
        })?)
    }

    /// How far the gateway of this vehicle is.
    pub(super) fn status(&self, vehicle_id: &str) -> Option<Status> {
        let vehicle =
            self.vehicles.iter().find(|vehicle| vehicle.config().vehicle_id.as_str() == vehicle_id)?;
        Some(vehicle.status().borrow().clone())
    }

    /// The image that ECUs with this hardware should run now.
    pub(super) fn image(&self, hw_part_no: &Text) -> anyhow::Result<Vec<u8>> {
        let file = image_file(self.folder()?, hw_part_no);
        std::fs::read(&file).with_context(|| format!("cannot read the image {} again", file.display()))
    }

    /// What a person can do while everything is left running.
    pub(super) fn how_to_look_around(&self) -> anyhow::Result<String> {
        let server = self.server.as_ref().context("the server does not run")?;
        let ca = server.operator_ca.as_ref().context("the server has no certificate of its own authority")?;
        Ok(format!(
            "\nEverything is still running. In another terminal:\n  \
             export FARRIER_SERVER={} FARRIER_TOKEN=$(cat {}) FARRIER_CA={}\n  \
             farrier vehicle list\n  farrier campaign show {CAMPAIGN}\n\
             In a browser, which has to be told to trust the certificate once:\n  {}\nCtrl-C ends it.",
            server.operator_url,
            server.operator_token.display(),
            ca.display(),
            server.console_link.as_deref().unwrap_or(&server.operator_url)
        ))
    }

    /// Stops what runs, in the order in which nobody misses anybody, and removes the folder.
    pub(super) async fn clear(&mut self) {
        for vehicle in self.vehicles.drain(..) {
            if let Err(error) = vehicle.stop().await {
                tracing::warn!(%error, "A simulated vehicle did not stop cleanly.");
            }
        }
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        if let Some(folder) = self.folder.take() {
            let path = folder.path().to_owned();
            if let Err(error) = folder.close() {
                tracing::error!(%error, folder = %path.display(), "The temporary folder could not be removed.");
            }
        }
    }

    fn folder(&self) -> anyhow::Result<&Path> {
        self.folder.as_ref().map(TempDir::path).context("the temporary folder is not made yet")
    }

    async fn all_vehicles_known(&self, operator: &Operator) -> anyhow::Result<()> {
        let deadline = Instant::now() + ARRIVAL;
        let mut every = tokio::time::interval(Duration::from_millis(50));
        loop {
            every.tick().await;
            let answer = operator.list(&["vehicles"]).await?;
            let known = answer.as_array().map_or(0, Vec::len);
            if known == self.vehicles.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "expected {} vehicles to connect within {} s, found {known}; see the log with --log debug",
                    self.vehicles.len(),
                    ARRIVAL.as_secs()
                );
            }
        }
    }
}

fn image_file(folder: &Path, hw_part_no: &Text) -> PathBuf {
    folder.join("images").join(format!("{hw_part_no}.bin"))
}

/// One image for each hardware: every ECU of a vehicle has its own.
fn write_images(plan: &Plan, folder: &Path) -> anyhow::Result<Vec<ImageArg>> {
    std::fs::create_dir(folder.join("images"))?;
    let mut images = Vec::new();
    for ecu in ControllerConfig::mixed(plan.ecus).into_iter().flat_map(|controller| controller.ecus) {
        let hw_part_no = ecu.hw_part_no;
        let file = image_file(folder, &hw_part_no);
        write_image(&plan.image, &hw_part_no, &file)
            .with_context(|| format!("cannot copy {} to {}", plan.image.file.display(), file.display()))?;
        images.push(ImageArg::new(hw_part_no, NEW_VERSION.parse()?, file));
    }
    Ok(images)
}

fn write_image(image: &Image, hw_part_no: &Text, to: &Path) -> std::io::Result<()> {
    let mut to = File::create(to)?;
    if image.names_hardware {
        writeln!(to, "Farrier demo image {NEW_VERSION} for {hw_part_no}")?;
    }
    std::io::copy(&mut File::open(&image.file)?.take(image.size_bytes), &mut to)?;
    Ok(())
}

fn vehicle_config(
    plan: &Plan,
    vehicle_id: &VehicleId,
    folder: &Path,
    mqtt_port: u16,
) -> anyhow::Result<VehicleConfig> {
    let folder_of_vehicle = folder.join("vehicles").join(vehicle_id.as_str());
    let gateway_id = vehicle_id.as_str().replace("VEH", "CCU").parse()?;
    let binding = Binding { vehicle_id: vehicle_id.clone(), gateway_id };
    let mut config = VehicleConfig::on_this_machine(binding, mqtt_port, &folder_of_vehicle);
    config.release_public_key = folder.join("pki").join("release.pub.pem");
    config.controllers = ControllerConfig::mixed(plan.ecus);
    if plan.failing.vehicle_id == *vehicle_id {
        let failing =
            config.ecu_mut(&plan.failing.ecu_id).context("the failing ECU is not in the vehicle")?;
        failing.faults.fails_write_at_byte = Some(plan.image.size_bytes / 2);
    }
    Ok(config)
}

/// Free ports on loopback, and deadlines that fit a demo.
fn server_config(folder: &Path) -> ServerConfig {
    let mut config = ServerConfig::for_one_machine(folder.join("data"), folder.join("pki"));
    for listener in [&mut config.mqtt.listen, &mut config.https, &mut config.operator] {
        listener.set_port(0);
    }
    config.enroll = Enroll::Auto;
    config.failure_report = true;
    config.deadlines.update_deadline_s = 240;
    config.deadlines.verify_deadline_s = 30;
    config
}
