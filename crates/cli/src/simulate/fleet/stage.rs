//! What a fleet meets: a server, its own or one that runs already, certificates, a release, a campaign.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use farrier_protocol::{Binding, Thumbprint};
use farrier_server::pki::{LEAF_VALIDITY, Pki};
use futures_util::{StreamExt, TryStreamExt, stream};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::kx_group;
use serde_json::json;
use tempfile::TempDir;

use super::Fleet;
use super::inventory::Model;
use crate::folder;
use crate::light::tls::{ClientTls, Endpoint};
use crate::operator::{Operator, OperatorArgs};
use crate::output::now;
use crate::release::{self, ImageArg, RulesArgs};
use crate::release_key::ReleaseKey;
use crate::server_process::{ServerProcess, ServerSetup};

/// What the ECUs run at first.
pub(super) const FACTORY_VERSION: &str = "1.0.0";
/// What they shall run.
const NEW_VERSION: &str = "2.0.0";
/// Octets of the image of an ECU.
const IMAGE_OCTETS: usize = 4 * 1024;
/// Vehicles that are enrolled at a time where an operator has to.
const ENROLLING: usize = 16;

/// Of the fleet's own server: silence ends within the run.
const SETTINGS: &str = "failure_report = true\n[deadlines]\nverify_deadline_s = 40\n";
/// Vehicles that need a workshop are meant to be there: the server's alarms are none here.
const LOG: &str = "error,farrier_server::conversation::outgoing=off";

/// A server, and who may speak with it.
pub(super) struct Stage {
    pub(super) operator: Operator,
    pub(super) server: Endpoint,
    /// Names everything that this run makes, so that it does not meet what an earlier one made.
    pub(super) tag: String,
    pki: Pki,
    /// The fleet's own server; gone with the stage, and before its folder.
    own: Option<ServerProcess>,
    folder: TempDir,
}

/// A vehicle that may connect.
pub(super) struct Member {
    pub(super) binding: Binding,
    pub(super) thumbprint: Thumbprint,
    pub(super) tls: Arc<ClientConfig>,
}

impl Stage {
    /// Starts a server, or meets the one that was named.
    pub(super) async fn set(fleet: &Fleet) -> anyhow::Result<Self> {
        let folder = folder::temporary("farrier-fleet-", fleet.dir.as_deref())?;
        let Some(server) = &fleet.server else {
            let own = ServerProcess::start_with(&ServerSetup {
                settings_toml: SETTINGS,
                log: LOG,
                dir: Some(folder.path()),
                store: None,
            })?;
            return Ok(Self {
                operator: own.operator()?,
                server: Endpoint::on_this_machine(own.mqtt),
                tag: "FLEET".to_owned(),
                pki: own.pki.clone(),
                folder,
                own: Some(own),
            });
        };
        let operator = Operator::new(&OperatorArgs {
            server: server.clone(),
            token: fleet.token.clone(),
            token_file: fleet.token_file.clone(),
            ca: fleet.ca.clone(),
            json: true,
        })?;
        let pki = fleet.pki.as_deref().context("--server needs --pki, the folder of its certificates")?;
        let mqtt = fleet.mqtt.as_deref().context("--server needs --mqtt, where its vehicles connect")?;
        let (host, port) = mqtt.rsplit_once(':').context("expected --mqtt as host:port")?;
        let port = port.parse().context("expected --mqtt as host:port")?;
        Ok(Self {
            operator,
            server: Endpoint::look_up(host, port).await?,
            tag: fleet.tag.as_ref().map_or_else(|| format!("FLEET-{:x}", now().0), ToString::to_string),
            pki: Pki::open(pki)?,
            folder,
            own: None,
        })
    }

    /// The name of the release and of the campaign.
    pub(super) fn name(&self) -> String {
        self.tag.to_lowercase()
    }

    /// A certificate for each vehicle; where the server is not the fleet's own, its operator lets each in.
    pub(super) async fn members(&self, count: u32) -> anyhow::Result<Vec<Member>> {
        let binding = |number: u32| {
            let vehicle_id = format!("{}-{number:05}", self.tag).parse()?;
            Ok(Binding { vehicle_id, gateway_id: format!("CCU-{number:05}").parse()? })
        };
        let bindings = (1..=count).map(binding).collect::<anyhow::Result<Vec<_>>>()?;
        if self.own.is_none() {
            self.enrol(&bindings).await?;
        }
        let pki = self.pki.clone();
        let making = tokio::task::spawn_blocking(move || {
            let shared = ClientTls::new(&pki.root_certificate(), vec![kx_group::X25519MLKEM768])?;
            let issued = pki.issue_vehicles_in_memory(bindings, LEAF_VALIDITY, now())?;
            let member = |certificate: farrier_server::pki::VehicleCertificate| {
                let leaf = certificate.chain.first().context("no certificate was issued")?;
                let thumbprint = Thumbprint::of_certificate(leaf);
                let mut tls = shared.config(certificate.chain, certificate.key)?;
                // Room for sessions would be most of what a vehicle takes.
                tls.resumption = Resumption::disabled();
                Ok(Member { binding: certificate.binding, thumbprint, tls: Arc::new(tls) })
            };
            issued.into_iter().map(member).collect::<anyhow::Result<Vec<_>>>()
        });
        making.await.context("making the certificates ended by a panic")?
    }

    async fn enrol(&self, bindings: &[Binding]) -> anyhow::Result<()> {
        let enrol = |Binding { vehicle_id, gateway_id }: &Binding| {
            let body = json!({ "vehicle_id": vehicle_id, "gateway_id": gateway_id });
            async move { self.operator.post(&["vehicles"], &body).await.map(|_| ()) }
        };
        let enrolling = stream::iter(bindings.iter().map(enrol)).buffer_unordered(ENROLLING);
        Ok(enrolling.try_collect::<()>().await?)
    }

    /// Brings one image for each ECU to the server and starts a campaign for these vehicles.
    pub(super) async fn start_campaign(
        &self,
        model: &Model,
        vehicles: &[String],
        update_deadline_s: u64,
    ) -> anyhow::Result<()> {
        let images = write_images(model, self.folder.path())?;
        let release_key = self.pki.release_key();
        let key = release_key.is_file().then(|| ReleaseKey::load(&release_key)).transpose()?;
        let name = self.name();
        release::create(&self.operator, &name, &images, &RulesArgs::default(), key.as_ref()).await?;
        // Vehicles that are left with a mix are part of the play: they stop nothing.
        let campaign = json!({
            "name": name, "release": name, "vehicles": vehicles, "update_deadline_s": update_deadline_s,
            "rollout": {"stop": {"inconsistent": false}},
        });
        self.operator.post(&["campaigns"], &campaign).await?;
        self.operator.post(&["campaigns", &name, "start"], &json!({})).await?;
        Ok(())
    }

    /// Leaves nothing under way on a server that goes on without the fleet.
    pub(super) async fn abandon(&self) {
        if self.own.is_none() {
            let reason = json!({ "reason": "the simulated fleet was stopped" });
            if let Err(error) = self.operator.post(&["campaigns", &self.name(), "abort"], &reason).await {
                tracing::warn!(%error, "The campaign of the simulated fleet could not be aborted.");
            }
        }
    }
}

/// A small image for each hardware, each with other content.
fn write_images(model: &Model, folder: &Path) -> anyhow::Result<Vec<ImageArg>> {
    let image = |hw_part_no: &farrier_protocol::Text| {
        let file: PathBuf = folder.join(format!("{hw_part_no}.bin"));
        let line = format!("Farrier fleet image {NEW_VERSION} for {hw_part_no}\n");
        let content: Vec<u8> = line.bytes().cycle().take(IMAGE_OCTETS).collect();
        std::fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(ImageArg::new(hw_part_no.clone(), NEW_VERSION.parse()?, file))
    };
    model.ecus().iter().map(|ecu| image(&ecu.hw_part_no)).collect()
}
