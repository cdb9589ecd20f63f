//! Makes an archive page by page, each page one read of the store: what is held does not grow with the fleet.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use farrier_protocol::{Text, UnixMillis, VehicleId};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::archive::{Archive, Manifest, SCHEMA, Stopped};
use super::html;
use super::key::EvidenceKey;
use super::records::{self, CampaignRecord, Instant, UpdateRecord, VehicleRecord};
use crate::audit::{AuditEntry, AuditHead};
use crate::store::updates::{self, VehicleUpdate};
use crate::store::{Store, StoreError, Tx, audit, campaigns, evidence, vehicles};

/// Vehicle updates of one file.
const UPDATES_A_FILE: u32 = 50;
/// Entries of the audit log of one file.
const ENTRIES_A_FILE: u32 = 1_000;
/// Parts of the archive that are made before the reader has taken them.
const AHEAD: usize = 4;

/// What is exported.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// A campaign with all its vehicles.
    Campaign(Text),
    /// A vehicle with all its updates.
    Vehicle(VehicleId),
}

impl Subject {
    fn sentence(&self) -> String {
        match self {
            Self::Campaign(name) => format!("campaign {name}"),
            Self::Vehicle(vehicle_id) => format!("vehicle {vehicle_id}"),
        }
    }
}

/// An export that is asked for.
pub(crate) struct Export {
    pub(crate) store: Store,
    pub(crate) key: Arc<EvidenceKey>,
    /// How vehicles reach the server.
    pub(crate) server: String,
    pub(crate) subject: Subject,
    pub(crate) at: UnixMillis,
}

/// What the table of contents says of a file of records.
pub(super) struct RecordsFile {
    pub(super) number: usize,
    pub(super) first: VehicleId,
    pub(super) last: VehicleId,
    pub(super) updates: usize,
}

impl Export {
    /// Begins; gives what the archive's octets come from. An archive that breaks off ends with an error, and has no manifest.
    pub(crate) fn start(self, place: OwnedSemaphorePermit) -> mpsc::Receiver<io::Result<Bytes>> {
        let (out, octets) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            let _place = place;
            let subject = self.subject.sentence();
            match self.run(Archive::new(out.clone())).await {
                Ok(()) => tracing::info!(subject, "Evidence was exported."),
                Err(Stopped::Gone) => {}
                Err(error) => {
                    tracing::error!(
                        subject,
                        error = &error as &dyn std::error::Error,
                        "Evidence could not be exported."
                    );
                    // Who reads may have gone meanwhile.
                    let _ = out.send(Err(io::Error::other("the export broke off"))).await;
                }
            }
        });
        octets
    }

    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.store.read(job).await
    }

    async fn run(self, mut archive: Archive) -> Result<(), Stopped> {
        let head = self.read(audit::head).await?;
        let instant = Instant { at: self.at, audit_seq: head.seq };
        let (campaigns, rxswins) = self.campaigns(&mut archive, instant).await?;
        self.register(&mut archive, &rxswins).await?;
        let vehicle = self.vehicle(&mut archive).await?;
        let files = self.updates(&mut archive, instant).await?;
        let audit_from = self.audit(&mut archive, &campaigns, head).await?;
        let index = html::index(&html::Index {
            subject: &self.subject.sentence(),
            server: &self.server,
            at: self.at,
            key_sha256: self.key.public().sha256(),
            campaigns: &campaigns,
            vehicle: vehicle.as_ref(),
            files: &files,
            audit_head: head,
        });
        archive.file("index.html".to_owned(), index.into_bytes()).await?;
        let manifest = Manifest {
            schema: SCHEMA.to_owned(),
            subject: self.subject.sentence(),
            server: self.server.clone(),
            made_at_ms: self.at,
            key_sha256: self.key.public().sha256(),
            audit_from,
            audit_head: head,
            files: Vec::new(),
        };
        archive.end(manifest, &self.key).await
    }

    /// The campaigns that are spoken of, and the RXSWINs that they change.
    async fn campaigns(
        &self,
        archive: &mut Archive,
        instant: Instant,
    ) -> Result<(Vec<CampaignRecord>, BTreeSet<Text>), Stopped> {
        let names = match &self.subject {
            Subject::Campaign(name) => vec![name.clone()],
            Subject::Vehicle(vehicle_id) => {
                let vehicle_id = vehicle_id.clone();
                let updates = self.read(move |tx| updates::of_vehicle(tx, &vehicle_id)).await?;
                let names: BTreeSet<_> = updates.into_iter().map(|update| update.campaign).collect();
                names.into_iter().collect()
            }
        };
        let (mut shown, mut rxswins) = (Vec::new(), BTreeSet::new());
        for name in names {
            let record = self.read(move |tx| match campaigns::by_name(tx, &name)? {
                Some(campaign) => records::campaign(tx, &campaign, instant).map(Some),
                None => Ok(None),
            });
            let Some(record) = record.await? else { continue };
            archive.file(format!("campaigns/{}.json", record.campaign), document(&record)?).await?;
            rxswins.extend(record.rxswins.iter().map(|changed| changed.rxswin.clone()));
            shown.push(record);
        }
        Ok((shown, rxswins))
    }

    /// Every revision of the register for these RXSWINs.
    async fn register(&self, archive: &mut Archive, rxswins: &BTreeSet<Text>) -> Result<(), Stopped> {
        let (mut number, until) = (0_u64, self.at);
        for rxswin in rxswins {
            let mut after = (String::new(), 0);
            loop {
                let (name, from) = (rxswin.clone(), after.clone());
                let found = self.read(move |tx| evidence::revisions_of(tx, &name, &from, until, 1)).await?;
                let Some(revision) = found.first() else { break };
                number = number.saturating_add(1);
                let content = document(&records::revision(revision))?;
                archive.file(format!("register/{number:06}.json"), content).await?;
                let place = i64::try_from(revision.revision).unwrap_or(i64::MAX);
                after = (revision.vehicle_type.to_string(), place);
            }
        }
        Ok(())
    }

    async fn vehicle(&self, archive: &mut Archive) -> Result<Option<VehicleRecord>, Stopped> {
        let Subject::Vehicle(vehicle_id) = &self.subject else { return Ok(None) };
        let vehicle_id = vehicle_id.clone();
        let vehicle = self.read(move |tx| vehicles::by_id(tx, &vehicle_id)).await?;
        let record = vehicle.as_ref().map(VehicleRecord::from);
        if let Some(record) = &record {
            archive.file("vehicle.json".to_owned(), document(record)?).await?;
        }
        Ok(record)
    }

    /// The records of the updates, as JSON and for people.
    async fn updates(&self, archive: &mut Archive, instant: Instant) -> Result<Vec<RecordsFile>, Stopped> {
        let (mut files, mut after): (Vec<RecordsFile>, _) = (Vec::new(), Some(String::new()));
        while let Some(from) = after.take() {
            let subject = self.subject.clone();
            let (found, next) = self.read(move |tx| page(tx, &subject, &from, instant)).await?;
            after = next;
            let (Some(first), Some(last)) = (found.first(), found.last()) else { continue };
            let file = RecordsFile {
                number: files.len().saturating_add(1),
                first: first.vehicle.vehicle_id.clone(),
                last: last.vehicle.vehicle_id.clone(),
                updates: found.len(),
            };
            let mut lines = Vec::new();
            for record in &found {
                serde_json::to_writer(&mut lines, record)?;
                lines.push(b'\n');
            }
            archive.file(format!("vehicles/{:06}.jsonl", file.number), lines).await?;
            let page = html::updates(file.number, &found);
            archive.file(format!("vehicles/{:06}.html", file.number), page.into_bytes()).await?;
            files.push(file);
        }
        Ok(files)
    }

    /// The audit log from the first entry about what is exported to its end: whatever lies between is there too, so that the
    /// chain can be followed.
    async fn audit(
        &self,
        archive: &mut Archive,
        campaigns: &[CampaignRecord],
        head: AuditHead,
    ) -> Result<Option<u64>, Stopped> {
        let mut objects: BTreeSet<_> = campaigns
            .iter()
            .flat_map(|campaign| {
                [format!("campaign/{}", campaign.campaign), format!("release/{}", campaign.release)]
            })
            .collect();
        if let Subject::Vehicle(vehicle_id) = &self.subject {
            objects.insert(format!("vehicle/{vehicle_id}"));
        }
        let firsts = self.read(move |tx| {
            let firsts: Result<Vec<_>, _> =
                objects.iter().map(|object| evidence::first_audited(tx, object, head.seq)).collect();
            firsts
        });
        let Some(first) = firsts.await?.into_iter().flatten().min() else { return Ok(None) };
        let (mut after, mut number) = (first.saturating_sub(1), 0_u64);
        while after < head.seq {
            let mut entries: Vec<AuditEntry> =
                self.read(move |tx| audit::page(tx, after, ENTRIES_A_FILE)).await?;
            entries.retain(|entry| entry.seq <= head.seq);
            let Some(last) = entries.last() else { break };
            after = last.seq;
            number = number.saturating_add(1);
            let mut lines = Vec::new();
            for entry in &entries {
                serde_json::to_writer(&mut lines, entry)?;
                lines.push(b'\n');
            }
            archive.file(format!("audit/{number:06}.jsonl"), lines).await?;
        }
        Ok(Some(first))
    }
}

/// Some records, and after which vehicle or update there are more.
fn page(
    tx: &Tx<'_>,
    subject: &Subject,
    after: &str,
    instant: Instant,
) -> Result<(Vec<UpdateRecord>, Option<String>), StoreError> {
    let (page, key): (_, fn(&VehicleUpdate) -> String) = match subject {
        Subject::Campaign(name) => (updates::page_of_campaign(tx, name, after, UPDATES_A_FILE)?, |update| {
            update.vehicle_id.to_string()
        }),
        Subject::Vehicle(vehicle_id) => {
            let mut page = updates::of_vehicle(tx, vehicle_id)?;
            page.retain(|update| update.id.as_str() > after);
            page.truncate(UPDATES_A_FILE as usize);
            (page, |update| update.id.clone())
        }
    };
    let next = page.last().filter(|_| page.len() >= UPDATES_A_FILE as usize).map(key);
    // What came later than the export was asked for is not in it.
    let page = page.iter().filter(|update| update.created_at <= instant.at);
    Ok((page.map(|update| records::update(tx, update, instant)).collect::<Result<_, _>>()?, next))
}

fn document(content: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = serde_json::to_vec_pretty(content)?;
    json.push(b'\n');
    Ok(json)
}
