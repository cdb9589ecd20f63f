//! The records of one update: what the gateway must remember across a power cut.
//!
//! Each is durable before the side effects that follow from it, so that the last one bounds what can have
//! happened to the ECUs:
//!
//! | last record | what can have happened since | after a restart |
//! |---|---|---|
//! | Accepted | nothing | syncing, from its beginning |
//! | Synced | packages fetched | transferring goes on from what is on disk |
//! | Transferred | the driver was asked | waits again, and asks again |
//! | Consented | nothing: it waits for the vehicle | waits again, without asking |
//! | Process | inactive banks erased or written | RollBack is recorded; every ECU must say that it runs its earlier software |
//! | Activate | boot flags swapped, in any number of ECUs | RollBack is recorded; every ECU is rolled back, restarted and asked |
//! | Activated | ECUs restarted into the new software, on trial | as after Activate |
//! | Commit | ECUs confirmed | finishing: every ECU is asked, and brought forward by what it says (table in `ecu_work.rs`) |
//! | RollBack | ECUs rolled back | goes on rolling back |
//! | Undo | ECUs rolled back | goes on rolling back |
//! | Ended | packages deleted | cleaning up |
//!
//! What then follows from what each ECU says it runs (the new software *ready* = in the other bank, bootable):
//!
//! | last record | asked after | earlier | earlier, new ready | new on trial | new confirmed | no answer |
//! |---|---|---|---|---|---|---|
//! | Accepted | | remembered | remembered | ended: not of this update | remembered | asked again |
//! | Process, RollBack before any swap | | at rest | at rest | asked again, until its trial runs out | asked again | asked again |
//! | Activate, Activated, RollBack after a swap | roll-back and restart | at rest | at rest | rolled back again | rolled back again | rolled back again |
//! | Commit | | asked again | activated again | confirmed | at rest | asked again |
//! | Undo | roll-back and restart | at rest | at rest | rolled back again | rolled back again | rolled back again |
//!
//! "Again" happens a bounded number of times; then service is required and the ECU is named (after Accepted: the
//! update ends, for nothing was touched). `update/tests/recovery.rs` walks every cell.
//!
//! The order in which records may follow each other is [`Record::may_follow`].

use farrier_protocol::{EcuId, MsgId, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// One durable step of an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The StartDownload is taken on.
    Accepted(Box<Plan>),
    /// Every ECU said what it runs.
    Synced(Vec<EarlierSoftware>),
    /// Every package is here and verified.
    Transferred,
    /// The driver agrees, or need not be asked.
    Consented,
    /// The vehicle is ready; banks may be written from now on.
    Process,
    /// The barrier: every inactive bank is written; boot flags may be swapped from now on.
    Activate,
    /// Every boot flag is swapped; ECUs may be restarted from now on.
    Activated,
    /// Every ECU proved the new software; from now on the update only goes forward.
    Commit,
    /// Every ECU goes back to its earlier software.
    RollBack {
        /// Whether boot flags may have been swapped.
        swapped: bool,
        /// Why.
        why: Why,
    },
    /// A StartRollback of the committed update is taken on.
    Undo {
        /// Its `msg_id`.
        command: MsgId,
        /// When it was accepted.
        accepted_at: UnixMillis,
    },
    /// The update has ended.
    Ended(Ending),
}

/// What an ECU ran before the update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierSoftware {
    /// The ECU.
    pub ecu_id: EcuId,
    /// Version of the running software.
    pub version: String,
    /// The bank it ran from.
    pub bank: u8,
}

/// Why an update does not go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// For people.
    pub detail: String,
    /// The ECUs that failed, if any did.
    pub failed_ecus: Vec<EcuId>,
    /// Whether it was cancelled rather than failed.
    pub cancelled: bool,
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Every ECU runs the new software and has acknowledged it.
    Committed,
    /// Every ECU runs its earlier software.
    RolledBack(Why),
    /// As the server asked: every ECU runs its earlier software.
    Cancelled,
    /// The driver does not agree, so nothing was written.
    ConsentDenied(Why),
    /// A committed update was undone: every ECU runs its earlier software again.
    Undone,
    /// The ECUs named could not be brought to the state of the others.
    ServiceRequired(Why),
}

/// The journal does not hold what a gateway wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the records of an update in their order, found {found}; the journal is damaged, have the vehicle checked"
)]
pub struct DamagedRecords {
    /// What was found.
    pub found: String,
}

impl Record {
    /// Whether this can be the record after `earlier` (`None` = the first one).
    pub fn may_follow(&self, earlier: Option<&Self>) -> bool {
        let earlier = match earlier {
            Some(earlier) => earlier.kind(),
            None => return self.kind() == Kind::Accepted,
        };
        let allowed: &[Kind] = match self {
            Self::Accepted(_) => &[],
            Self::Synced(_) => &[Kind::Accepted],
            Self::Transferred => &[Kind::Synced],
            Self::Consented => &[Kind::Transferred],
            Self::Process => &[Kind::Consented],
            Self::Activate => &[Kind::Process],
            Self::Activated => &[Kind::Activate],
            Self::Commit => &[Kind::Activated],
            Self::RollBack { swapped: false, .. } => &[Kind::Process, Kind::Activate],
            Self::RollBack { swapped: true, .. } => &[Kind::Activate, Kind::Activated],
            Self::Undo { .. } => &[Kind::Committed],
            Self::Ended(ending) => match ending {
                Ending::Committed => &[Kind::Commit],
                Ending::RolledBack(_) | Ending::Cancelled => {
                    &[Kind::Accepted, Kind::Synced, Kind::Transferred, Kind::Consented, Kind::RollBack]
                }
                Ending::ConsentDenied(_) => &[Kind::Transferred],
                Ending::Undone => &[Kind::Undo],
                Ending::ServiceRequired(_) => &[Kind::Commit, Kind::RollBack, Kind::Undo],
            },
        };
        allowed.contains(&earlier)
    }

    /// A short name, for logs and for the journal.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Synced(_) => "synced",
            Self::Transferred => "transferred",
            Self::Consented => "consented",
            Self::Process => "process",
            Self::Activate => "activate",
            Self::Activated => "activated",
            Self::Commit => "commit",
            Self::RollBack { .. } => "roll_back",
            Self::Undo { .. } => "undo",
            Self::Ended(_) => "ended",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Accepted(_) => Kind::Accepted,
            Self::Synced(_) => Kind::Synced,
            Self::Transferred => Kind::Transferred,
            Self::Consented => Kind::Consented,
            Self::Process => Kind::Process,
            Self::Activate => Kind::Activate,
            Self::Activated => Kind::Activated,
            Self::Commit => Kind::Commit,
            Self::RollBack { .. } => Kind::RollBack,
            Self::Undo { .. } => Kind::Undo,
            Self::Ended(Ending::Committed) => Kind::Committed,
            Self::Ended(_) => Kind::Closed,
        }
    }
}

/// A record without its data, for the order of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Accepted,
    Synced,
    Transferred,
    Consented,
    Process,
    Activate,
    Activated,
    Commit,
    RollBack,
    Undo,
    Committed,
    Closed,
}

/// Reads back the plan, what the ECUs ran before, and the last record.
pub(crate) fn read_back(
    records: Vec<Record>,
) -> Result<(Box<Plan>, Vec<EarlierSoftware>, Record), DamagedRecords> {
    let mut plan = None;
    let mut earlier = Vec::new();
    let mut last: Option<Record> = None;
    for record in records {
        if !record.may_follow(last.as_ref()) {
            let after = last.as_ref().map_or("nothing", Record::name);
            return Err(DamagedRecords { found: format!("{} after {after}", record.name()) });
        }
        if let Record::Accepted(accepted) = &record {
            plan = Some(accepted.clone());
        }
        if let Record::Synced(software) = &record {
            earlier.clone_from(software);
        }
        last = Some(record);
    }
    match (plan, last) {
        (Some(plan), Some(last)) => Ok((plan, earlier, last)),
        (None, _) | (_, None) => Err(DamagedRecords { found: "no record".to_owned() }),
    }
}
