//! Records that satisfy UN R156: what of each update is kept, and the signed archive that it is exported as. Owns what is
//! recorded when, the archive's form, its signature and its proof; leaves rows to the store and requests to the API.

mod archive;
mod capture;
mod export;
mod html;
mod key;
mod records;
mod verify;

use farrier_campaign::{FoundVersion, IneligibleReason, PlannedPackage, VerifyCause};
use farrier_protocol::{LongText, Sha256, Text, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use records::Instant;

use crate::store::campaigns::Campaign;
use crate::store::updates::VehicleUpdate;
use crate::store::{StoreError, Tx, audit};

pub(crate) use capture::{note_end, note_go};
pub(crate) use export::{Export, Subject};
pub(crate) use html::Fragment;
pub(crate) use key::EvidenceKey;
pub use key::{EvidenceKeyError, EvidencePublicKey};
pub use verify::{BrokenArchive, VerifiedArchive, verify};

/// The record of an update as it stands now, as an archive shows it to people.
pub(crate) fn update_for_people(
    tx: &Tx<'_>,
    update: &VehicleUpdate,
    now: UnixMillis,
) -> Result<Fragment, StoreError> {
    let instant = Instant { at: now, audit_seq: audit::head(tx)?.seq };
    Ok(Fragment::of_update(&records::update(tx, update, instant)?))
}

/// The same of a campaign.
pub(crate) fn campaign_for_people(
    tx: &Tx<'_>,
    campaign: &Campaign,
    now: UnixMillis,
) -> Result<Fragment, StoreError> {
    let instant = Instant { at: now, audit_seq: audit::head(tx)?.seq };
    Ok(Fragment::of_campaign(&records::campaign(tx, campaign, instant)?))
}

/// What operators state of a campaign for its record. Each is for the paragraph of UN R156 that it names; what is absent is
/// exported as not stated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Statement {
    /// Why the software is updated (7.1.2.5 a).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) purpose: Option<LongText>,
    /// The systems and functions that the update may affect (7.1.2.5 b).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) functions_affected: Option<LongText>,
    /// Which of these are type approved (7.1.2.5 c).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) type_approved_systems: Option<LongText>,
    /// Whether the update affects how they meet their requirements (7.1.2.5 d).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effect_on_requirements: Option<LongText>,
    /// Whether it affects a parameter of a type approval (7.1.2.5 e).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) effect_on_parameters: Option<LongText>,
    /// Whether an approval was sought, and its reference, as the number of an extension (7.1.2.5 f).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) approval: Option<LongText>,
    /// How and under which conditions it may be executed, beside what the gateways are asked to measure (7.1.2.5 g).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) execution_conditions: Option<LongText>,
    /// Why it is conducted safely and securely (7.1.2.5 h).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) safety: Option<LongText>,
    /// How it was verified and validated (7.1.2.5 i).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verification: Option<LongText>,
    /// What the vehicle's user is told (7.1.1.11).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_information: Option<LongText>,
}

impl Statement {
    /// The statements with their paragraphs of UN R156 and what they are about, in that order.
    pub(crate) fn by_paragraph(&self) -> [(&'static str, &'static str, Option<&LongText>); 10] {
        [
            ("7.1.2.5 a", "Purpose of the update", self.purpose.as_ref()),
            ("7.1.2.5 b", "Systems and functions that it may affect", self.functions_affected.as_ref()),
            ("7.1.2.5 c", "Type approved among them", self.type_approved_systems.as_ref()),
            ("7.1.2.5 d", "Effect on their requirements", self.effect_on_requirements.as_ref()),
            ("7.1.2.5 e", "Effect on parameters of the type approval", self.effect_on_parameters.as_ref()),
            ("7.1.2.5 f", "Approval sought", self.approval.as_ref()),
            (
                "7.1.2.5 g",
                "How and under which conditions it is executed",
                self.execution_conditions.as_ref(),
            ),
            ("7.1.2.5 h", "Safe and secure execution", self.safety.as_ref()),
            ("7.1.2.5 i", "Verification and validation", self.verification.as_ref()),
            ("7.1.1.11", "Information to the user", self.user_information.as_ref()),
        ]
    }
}

/// Software that belongs to an RXSWIN, with what its integrity is checked by (UN R156, 7.1.2.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegisteredSoftware {
    pub(crate) hw_part_no: Text,
    /// The supplier whose ECUs it is for; any without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) supplier: Option<Text>,
    /// The region whose vehicles it is for; any without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) region: Option<Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sw_part_no: Option<Text>,
    pub(crate) version: Text,
    /// Of the image.
    pub(crate) sha256: Sha256,
}

/// What was known when a vehicle said that it is ready and was told to begin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Go {
    /// The wire's `update_id`.
    pub(crate) attempt_id: Option<Text>,
    /// The RequestDownloadReadiness.
    pub(crate) request_msg_id: String,
    /// The conditions that the vehicle was asked to measure and to judge.
    pub(crate) conditions_asked: Vec<String>,
    /// The ReadinessReportForDownload.
    pub(crate) report_msg_id: String,
    /// What the vehicle measured.
    pub(crate) measured: Value,
    /// What was sent to it.
    pub(crate) packages: Vec<PlannedPackage>,
    /// The number of the configuration that it ran, among those of the record.
    pub(crate) configuration: Option<u64>,
}

/// What was known when an update was over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) attempt_id: Option<Text>,
    /// The state's name in docs/protocol.md, section 8.
    pub(crate) outcome: String,
    /// What happened and why, for people.
    pub(crate) sentence: String,
    /// Whether the server learned it only after the deadline.
    pub(crate) late: bool,
    /// What led to asking what the vehicle runs.
    pub(crate) cause: Option<VerifyCause>,
    /// Why the vehicle could not get the release.
    pub(crate) reasons: Vec<IneligibleReason>,
    /// The versions that an inconsistent vehicle runs.
    pub(crate) found: Vec<FoundVersion>,
    /// What was planned.
    pub(crate) packages: Vec<PlannedPackage>,
    /// The number of the configuration that the vehicle was last known to run, among those of the record.
    pub(crate) configuration: Option<u64>,
    /// The inventory that showed it; absent where none did.
    pub(crate) shown_by: Option<Shown>,
    /// What passed between server and vehicle, as far as it was still there.
    pub(crate) exchanged: Vec<Exchanged>,
}

/// An inventory by which the outcome is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// The vehicle's message.
    pub(crate) msg_id: Option<String>,
    /// The digest of the inventory (docs/protocol.md, section 4.3).
    pub(crate) vci_digest: Sha256,
}

/// A message between server and vehicle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Exchanged {
    /// When it was put into the outbox, or came.
    pub(crate) at_ms: UnixMillis,
    /// `server` or `vehicle`.
    pub(crate) sent_by: String,
    pub(crate) message: String,
    pub(crate) msg_id: String,
    /// The command that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) answers: Option<String>,
    /// When the vehicle acknowledged the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delivered_at_ms: Option<UnixMillis>,
    /// Of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content_sha256: Option<Sha256>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// A short answer, as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) content: Option<Value>,
}

#[cfg(test)]
mod tests;
