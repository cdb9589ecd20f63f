//! The documents of an archive, made from what the store holds. Their forms are versioned by `schema`; docs/evidence.md
//! says which paragraph of UN R156 each part is for.

use std::collections::{BTreeMap, BTreeSet};

use farrier_campaign::{Rollout, Rule, StopReason};
use farrier_protocol::{EcuEntry, SendVci, Sha256, Text, UnixMillis, VehicleId};
use serde::Serialize;
use serde_json::Value;

use super::{Ended, Go, RegisteredSoftware, Statement};
use crate::audit::AuditEntry;
use crate::store::campaigns::{self, Campaign};
use crate::store::evidence::{self, Moment, Revision};
use crate::store::updates::{self, VehicleUpdate};
use crate::store::vehicles::{self, Vehicle};
use crate::store::{StoreError, Tx, audit, inventories, releases};
use crate::vehicle_fields::{VehicleType, Vin};

/// Entries of the audit log that one document refers to, and vehicle types that it names.
const MOST_REFERRED: u32 = 1_000;

/// The state of the store that an export shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instant {
    pub(super) at: UnixMillis,
    /// The last entry of the audit log then.
    pub(super) audit_seq: u64,
}

/// A vehicle as the server knows it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct VehicleRecord {
    pub(super) vehicle_id: VehicleId,
    pub(super) gateway_id: String,
    pub(super) vin: Option<Vin>,
    pub(super) vehicle_type: Option<VehicleType>,
    pub(super) region: Option<Text>,
}

impl From<&Vehicle> for VehicleRecord {
    fn from(vehicle: &Vehicle) -> Self {
        Self {
            vehicle_id: vehicle.binding.vehicle_id.clone(),
            gateway_id: vehicle.binding.gateway_id.to_string(),
            vin: vehicle.vin.clone(),
            vehicle_type: vehicle.vehicle_type.clone(),
            region: vehicle.effective_region().cloned(),
        }
    }
}

/// An entry of the audit log that is in the archive.
#[derive(Debug, Clone, Serialize)]
pub(super) struct AuditReference {
    pub(super) seq: u64,
    pub(super) at_ms: UnixMillis,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) detail: Option<String>,
    pub(super) sha256: Sha256,
}

impl From<AuditEntry> for AuditReference {
    fn from(entry: AuditEntry) -> Self {
        let AuditEntry { seq, at_ms, actor, action, detail, sha256, .. } = entry;
        Self { seq, at_ms, actor, action, detail, sha256 }
    }
}

fn audited(tx: &Tx<'_>, object: &str, instant: Instant) -> Result<Vec<AuditReference>, StoreError> {
    let entries = audit::about(tx, object, instant.audit_seq, MOST_REFERRED)?;
    Ok(entries.into_iter().map(AuditReference::from).collect())
}

/// One vehicle in one campaign.
#[derive(Debug, Clone, Serialize)]
pub(super) struct UpdateRecord {
    pub(super) schema: &'static str,
    pub(super) update_id: String,
    pub(super) campaign: Text,
    pub(super) wave: u32,
    pub(super) vehicle: VehicleRecord,
    pub(super) state: &'static str,
    pub(super) is_over: bool,
    pub(super) selected_at_ms: UnixMillis,
    pub(super) started_at_ms: Option<UnixMillis>,
    pub(super) ended_at_ms: Option<UnixMillis>,
    /// `confirmed`, `refused` with the reasons in `ends`, `nothing_to_do` or `not_known` (7.1.2.4).
    pub(super) compatibility: &'static str,
    /// `refused`, `not_refused` or `not_asked`: gateways ask the user before they begin.
    pub(super) user_consent: &'static str,
    /// The states that it went through.
    pub(super) steps: Vec<StepRecord>,
    /// Each time the vehicle said that it is ready and was told to begin.
    pub(super) gos: Vec<Timed<Go>>,
    /// Each time it was over.
    pub(super) ends: Vec<Timed<Ended>>,
    /// The number of the configuration before the update, among `configurations` (7.1.2.2).
    pub(super) configuration_before: Option<u64>,
    /// The number of the configuration after it.
    pub(super) configuration_after: Option<u64>,
    /// Each ECU whose software is another after the update, or should be.
    pub(super) changes: Vec<EcuChange>,
    /// The inventories that are referred to, as the vehicle sent them.
    pub(super) configurations: Vec<ConfigurationRecord>,
    /// What operators did with this vehicle's update; what they did with the campaign is in its own document.
    pub(super) audit: Vec<AuditReference>,
}

/// A state and when it began.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StepRecord {
    pub(super) state: String,
    pub(super) at_ms: UnixMillis,
}

/// What was known at a time.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Timed<T> {
    pub(super) at_ms: UnixMillis,
    #[serde(flatten)]
    pub(super) content: T,
}

/// What one ECU ran before and after.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EcuChange {
    pub(super) ecu_id: String,
    pub(super) hw_part_no: Option<Text>,
    pub(super) before: Option<Text>,
    pub(super) after: Option<Text>,
    /// The version that was to be installed.
    pub(super) planned: Option<Text>,
    /// Of the image that was to be installed.
    pub(super) image_sha256: Option<Sha256>,
}

/// An inventory of the vehicle.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ConfigurationRecord {
    pub(super) number: u64,
    pub(super) vci_digest: Sha256,
    pub(super) first_seen_at_ms: UnixMillis,
    pub(super) inventory: SendVci,
}

/// The record of an update.
pub(super) fn update(
    tx: &Tx<'_>,
    update: &VehicleUpdate,
    instant: Instant,
) -> Result<UpdateRecord, StoreError> {
    let vehicle = vehicles::by_id(tx, &update.vehicle_id)?.ok_or_else(|| StoreError::Damaged {
        expected: "a vehicle",
        found: format!("none for update {}", update.id),
    })?;
    let (mut gos, mut ends) = (Vec::new(), Vec::new());
    for event in evidence::of_update(tx, &update.id)?.into_iter().filter(|event| event.at <= instant.at) {
        match event.moment {
            Moment::Go(content) => gos.push(Timed { at_ms: event.at, content }),
            Moment::Ended(content) => ends.push(Timed { at_ms: event.at, content }),
        }
    }
    let ends_at: Vec<_> = ends.iter().filter_map(|end| end.content.configuration).collect();
    let configuration_after = ends_at.last().copied();
    let configuration_before =
        gos.iter().find_map(|go| go.content.configuration).or(ends_at.first().copied());
    let numbers: BTreeSet<u64> =
        gos.iter().filter_map(|go| go.content.configuration).chain(ends_at.iter().copied()).collect();
    let mut configurations = Vec::new();
    for number in numbers {
        let found = inventories::configuration(tx, &update.vehicle_id, number)?;
        configurations.extend(found.map(|found| ConfigurationRecord {
            number: found.number,
            vci_digest: found.vci_digest,
            first_seen_at_ms: found.first_seen_at,
            inventory: found.vci,
        }));
    }
    let steps = updates::steps(tx, &update.id)?.into_iter().filter(|(_, at)| *at <= instant.at);
    let object = format!("campaign/{}/vehicle/{}", update.campaign, update.vehicle_id);
    let mut record = UpdateRecord {
        schema: "farrier-evidence-update-1",
        update_id: update.id.clone(),
        campaign: update.campaign.clone(),
        wave: update.wave,
        vehicle: (&vehicle).into(),
        state: update.state.name(),
        is_over: update.state.is_final(),
        selected_at_ms: update.created_at,
        started_at_ms: update.started_at,
        ended_at_ms: update.ended_at,
        compatibility: "not_known",
        user_consent: "not_asked",
        steps: steps.map(|(state, at_ms)| StepRecord { state, at_ms }).collect(),
        gos,
        ends,
        configuration_before,
        configuration_after,
        changes: Vec::new(),
        configurations,
        audit: audited(tx, &object, instant)?,
    };
    record.compatibility = record.compatibility();
    record.user_consent = record.user_consent();
    record.changes = record.changes();
    Ok(record)
}

impl UpdateRecord {
    fn compatibility(&self) -> &'static str {
        match self.ends.last().map(|end| end.content.outcome.as_str()) {
            _ if !self.gos.is_empty() => "confirmed",
            Some("ineligible") => "refused",
            Some("up_to_date") => "nothing_to_do",
            Some(_) | None => "not_known",
        }
    }

    fn user_consent(&self) -> &'static str {
        use farrier_campaign::VerifyCause::ConsentDenied;
        if self.ends.last().is_some_and(|end| matches!(end.content.cause, Some(ConsentDenied))) {
            "refused"
        } else if self.gos.is_empty() {
            "not_asked"
        } else {
            "not_refused"
        }
    }

    pub(super) fn configuration(&self, number: Option<u64>) -> Option<&ConfigurationRecord> {
        self.configurations.iter().find(|configuration| Some(configuration.number) == number)
    }

    fn changes(&self) -> Vec<EcuChange> {
        let ecus = |number| -> BTreeMap<String, &EcuEntry> {
            let inventory = self.configuration(number).map(|found| &found.inventory.ecu_inventory);
            inventory.into_iter().flatten().map(|ecu| (ecu.ecu_id.to_string(), ecu)).collect()
        };
        let (before, after) = (ecus(self.configuration_before), ecus(self.configuration_after));
        let packages = self.ends.last().map(|end| &end.content.packages);
        let packages = packages.or(self.gos.last().map(|go| &go.content.packages));
        let planned: BTreeMap<_, _> =
            packages.into_iter().flatten().map(|package| (package.ecu_id.to_string(), package)).collect();
        let ids: BTreeSet<_> = before.keys().chain(after.keys()).chain(planned.keys()).collect();
        let change = |id: &String| {
            let (before, after, planned) = (before.get(id), after.get(id), planned.get(id));
            let version = |ecu: Option<&&EcuEntry>| ecu.and_then(|ecu| ecu.sw_version.clone());
            let change = EcuChange {
                ecu_id: id.clone(),
                hw_part_no: after
                    .or(before)
                    .and_then(|ecu| ecu.hw_part_no.clone())
                    .or(planned.map(|package| package.hw_part_no.clone())),
                before: version(before),
                after: version(after),
                planned: planned.map(|package| package.version.clone()),
                image_sha256: planned.map(|package| package.image_sha256),
            };
            (planned.is_some() || change.before != change.after).then_some(change)
        };
        ids.into_iter().filter_map(change).collect()
    }
}

/// A campaign.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CampaignRecord {
    pub(super) schema: &'static str,
    pub(super) campaign: Text,
    pub(super) release: Text,
    pub(super) statement: Statement,
    pub(super) created_at_ms: UnixMillis,
    pub(super) started_at_ms: Option<UnixMillis>,
    pub(super) paused_at_ms: Option<UnixMillis>,
    pub(super) stopped_at_ms: Option<UnixMillis>,
    pub(super) stop_reason: Option<StopReason>,
    pub(super) aborted_at_ms: Option<UnixMillis>,
    pub(super) abort_reason: Option<Text>,
    /// Takes in every enrolled vehicle, later ones too; the vehicles are listed by the records.
    pub(super) every_vehicle: bool,
    pub(super) update_deadline_s: Option<u64>,
    pub(super) rollout: Rollout,
    /// How many vehicle updates are in which state.
    pub(super) states: BTreeMap<String, u64>,
    /// The software that it brings, with what its integrity is checked by (7.1.1.2).
    pub(super) images: Vec<ImageRecord>,
    /// What the release demands across ECUs (7.1.1.5).
    pub(super) rules: Vec<Rule>,
    /// The RXSWINs that it changes, with the register before and after (7.1.2.3).
    pub(super) rxswins: Vec<RxswinRecord>,
    pub(super) audit: Vec<AuditReference>,
}

/// An image of a release.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ImageRecord {
    #[serde(flatten)]
    pub(super) software: RegisteredSoftware,
    pub(super) size_bytes: u64,
    pub(super) rxswins: Vec<Text>,
}

/// What a campaign changes of an RXSWIN.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RxswinRecord {
    pub(super) rxswin: Text,
    /// For each vehicle type that the register has it for.
    pub(super) vehicle_types: Vec<TypeRecord>,
}

/// An RXSWIN of a vehicle type before and after a campaign.
#[derive(Debug, Clone, Serialize)]
pub(super) struct TypeRecord {
    pub(super) vehicle_type: VehicleType,
    /// The revision that was recorded when the campaign started; absent where it had not started, or there was none.
    pub(super) revision_before: Option<u64>,
    pub(super) software_before: Vec<RegisteredSoftware>,
    /// The newest revision of the time of the export.
    pub(super) revision_after: Option<u64>,
    pub(super) software_after: Vec<RegisteredSoftware>,
    /// Software of the release for this RXSWIN that the newest revision does not have: the register is behind.
    pub(super) not_registered: Vec<RegisteredSoftware>,
}

fn of_image(image: &farrier_campaign::Image) -> RegisteredSoftware {
    RegisteredSoftware {
        hw_part_no: image.hw_part_no.clone(),
        supplier: image.supplier.clone(),
        region: image.region.clone(),
        sw_part_no: None,
        version: image.version.clone(),
        sha256: image.sha256,
    }
}

/// The document of a campaign.
pub(super) fn campaign(
    tx: &Tx<'_>,
    campaign: &Campaign,
    instant: Instant,
) -> Result<CampaignRecord, StoreError> {
    let release = releases::by_name(tx, &campaign.release)?.ok_or_else(|| StoreError::Damaged {
        expected: "a release",
        found: format!("none for campaign {}", campaign.name),
    })?;
    let images: Vec<_> = release
        .release
        .images()
        .iter()
        .map(|image| ImageRecord {
            software: of_image(image),
            size_bytes: image.size_bytes,
            rxswins: image.rxswins.clone(),
        })
        .collect();
    let mut rxswins = Vec::new();
    for rxswin in release.release.rxswins() {
        let mut vehicle_types = Vec::new();
        for vehicle_type in evidence::types_with(tx, rxswin, MOST_REFERRED)? {
            vehicle_types.extend(of_type(tx, campaign, &images, rxswin, vehicle_type, instant)?);
        }
        rxswins.push(RxswinRecord { rxswin: rxswin.clone(), vehicle_types });
    }
    Ok(CampaignRecord {
        schema: "farrier-evidence-campaign-1",
        campaign: campaign.name.clone(),
        release: campaign.release.clone(),
        statement: evidence::statement(tx, &campaign.name)?.unwrap_or_default(),
        created_at_ms: campaign.created_at,
        started_at_ms: campaign.started_at,
        paused_at_ms: campaign.paused_at,
        stopped_at_ms: campaign.stopped.as_ref().map(|stopped| stopped.at),
        stop_reason: campaign.stopped.as_ref().map(|stopped| stopped.reason.clone()),
        aborted_at_ms: campaign.aborted.as_ref().map(|aborted| aborted.at),
        abort_reason: campaign.aborted.as_ref().map(|aborted| aborted.reason.clone()),
        every_vehicle: campaign.every_vehicle,
        update_deadline_s: campaign.update_deadline_s,
        rollout: campaign.rollout.clone(),
        states: campaigns::counts(tx, &campaign.name)?.by_state,
        images,
        rules: release.release.rules().rules.clone(),
        rxswins,
        audit: audited(tx, &format!("campaign/{}", campaign.name), instant)?,
    })
}

fn of_type(
    tx: &Tx<'_>,
    campaign: &Campaign,
    images: &[ImageRecord],
    rxswin: &Text,
    vehicle_type: VehicleType,
    instant: Instant,
) -> Result<Option<TypeRecord>, StoreError> {
    let at = |at| evidence::revision_at(tx, &vehicle_type, rxswin, at);
    let before = campaign.started_at.map(at).transpose()?.flatten();
    let Some(after) = at(instant.at)? else { return Ok(None) };
    let has = |software: &RegisteredSoftware| {
        after.content.software.iter().any(|registered| {
            registered.hw_part_no == software.hw_part_no
                && registered.version == software.version
                && registered.sha256 == software.sha256
        })
    };
    let of_rxswin = images.iter().filter(|image| image.rxswins.contains(rxswin)).map(|image| &image.software);
    Ok(Some(TypeRecord {
        not_registered: of_rxswin.filter(|software| !has(software)).cloned().collect(),
        revision_before: before.as_ref().map(|before| before.revision),
        software_before: before.map(|before| before.content.software).unwrap_or_default(),
        revision_after: Some(after.revision),
        software_after: after.content.software,
        vehicle_type,
    }))
}

/// A revision of the register.
pub(super) fn revision(revision: &Revision) -> Value {
    serde_json::json!({
        "schema": "farrier-evidence-rxswin-1",
        "vehicle_type": revision.vehicle_type, "rxswin": revision.rxswin, "revision": revision.revision,
        "software": revision.content.software, "approval": revision.content.approval, "note": revision.content.note,
        "recorded_at_ms": revision.recorded_at, "recorded_by": revision.recorded_by,
    })
}
