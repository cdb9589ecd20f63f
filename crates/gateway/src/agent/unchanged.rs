//! Looks after a start whether the vehicle is still what the inventory that was sent last says: a workshop may
//! have changed it. If not, the server is told by a WakeUp without the digest, and asks.

use std::time::Duration;

use farrier_protocol::{RequestVci, VciField, VehicleBody, vci_digest};

use super::{Agent, GatewayFailure, TaskResult};
use crate::inventory;

/// How long the ECUs may take.
const PATIENCE: Duration = Duration::from_secs(30);

impl Agent {
    /// Compares in the background; ECUs that are being updated are not asked, their digest is forgotten anyway.
    pub(super) async fn compare_inventory(&mut self) -> Result<(), GatewayFailure> {
        let (Some(digest), Some(mut fields)) =
            (self.journal.vci_digest().await?, self.journal.vci_fields().await?)
        else {
            return Ok(());
        };
        // The digest does not cover the power snapshot.
        fields.retain(|field| match field {
            VciField::PowerBattery12V | VciField::PowerBattery48V | VciField::PowerChargingStatus => false,
            VciField::EcuId
            | VciField::SupplierCode
            | VciField::HwPartNo
            | VciField::SwPartNo
            | VciField::SwVersion
            | VciField::BootloaderVer
            | VciField::CalibrationId
            | VciField::MacAddress
            | VciField::IpAddress
            | VciField::CanId => true,
        });
        if self.uses_ecus() {
            return Ok(());
        }
        let request =
            RequestVci { correlation_id: None, fields, deadline_s: None, expires_at_ms: None, reason: None };
        let (links, config, results) = (self.links.clone(), self.config.clone(), self.results.clone());
        // Never sent, so it answers no command.
        let (signals, command) = (self.signals.clone(), "VMG-after-start".parse()?);
        self.tasks.spawn(async move {
            let measured = signals.measure();
            let found = inventory::collect(&links, &config, &command, &request, measured, PATIENCE).await;
            // An ECU that does not answer says nothing about what it is.
            if found.is_ok_and(|vci| vci_digest(&vci) != digest) {
                results.send(TaskResult::VehicleChanged).await.ok();
            }
        });
        Ok(())
    }

    pub(super) async fn vehicle_changed(&mut self) -> Result<(), GatewayFailure> {
        tracing::warn!("The vehicle is not what its last inventory says; the server is told.");
        self.journal.forget_vci().await?;
        self.send(VehicleBody::WakeUp(self.boot.wake_up(None))).await
    }
}
