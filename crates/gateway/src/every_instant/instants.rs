//! Counts the instants of an update at which the power can fail, and strikes at one of them: from then on
//! nothing reaches an ECU or the disk, and the next gateway starts from a copy of the disk as it was.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard};

use rusqlite::Transaction;
use tokio::sync::watch;

use crate::disk::Change;
use crate::every_instant::vehicle::{ECUS, Vehicle};
use crate::journal::JournalError;
use crate::watch::{Instant, Watch};

/// How the gateway dies around a durable write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtWrite {
    Before,
    /// The last transaction, or the marker file, is cut in its middle.
    Torn,
    After,
    /// It does not die: the write fails.
    Fails,
}

/// How the gateway dies around a request to an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtRequest {
    Before,
    /// The ECU has carried it out, and the answer is never seen.
    Unanswered,
    After,
}

/// What an ECU does wrong at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EcuFailure {
    /// Answers this one with "general programming failure".
    Refuses,
    /// Answers this and all after it so.
    RefusesForEver,
    /// Answers this one and all after it not at all.
    FallsSilent,
    /// Loses power before it has carried it out, and has it again at once.
    LosesPowerBefore,
    /// Loses power when it has carried it out, before it answers.
    LosesPowerAfter,
}

/// Where to strike. Numbers count from 1; requests of each ECU on their own, without "tester present".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    None,
    Write {
        number: u32,
        how: AtWrite,
    },
    /// A change of a file beside the journal; each kind is counted on its own.
    File {
        change: Change,
        number: u32,
        how: AtWrite,
    },
    Request {
        ecu: u16,
        number: u32,
        how: AtRequest,
    },
    Ecu {
        ecu: u16,
        number: u32,
        how: EcuFailure,
    },
}

/// What the way to the ECUs does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    /// Forward, then strike.
    ForwardLast,
    Drop,
    Refuse,
    CutPower,
    CutPowerAfterwards,
}

#[derive(Debug)]
pub(super) struct Instants {
    point: Point,
    new: &'static str,
    /// The vehicle's folder.
    vehicle: PathBuf,
    state_dir: PathBuf,
    /// Where the copy of the disk goes.
    copy: PathBuf,
    state: Mutex<State>,
    committed: Condvar,
    struck: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether instants count.
    armed: bool,
    dead: bool,
    committing: bool,
    /// The answer of this ECU is the point.
    awaiting: Option<u16>,
    writes: u32,
    changes: BTreeMap<Change, u32>,
    /// How long the file was that is being added to.
    file_bytes: u64,
    requests: BTreeMap<u16, u32>,
    wal_bytes: u64,
    violations: Vec<String>,
}

impl Instants {
    /// `new` is the version that ECUs must run before COMMIT.
    pub(super) fn new(point: Point, vehicle: &Path, new: &'static str) -> Self {
        Self {
            point,
            new,
            vehicle: vehicle.to_owned(),
            state_dir: vehicle.join("state"),
            copy: vehicle.join("state_after"),
            state: Mutex::default(),
            committed: Condvar::new(),
            struck: watch::Sender::new(false),
        }
    }

    /// The folder that the next gateway starts from.
    pub(super) fn copy(&self) -> &Path {
        &self.copy
    }

    pub(super) fn struck(&self) -> watch::Receiver<bool> {
        self.struck.subscribe()
    }

    /// Whether nothing reaches the ECUs now.
    pub(super) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Instants count from now on.
    pub(super) fn arm(&self) {
        self.lock().armed = true;
    }

    /// The gateway that was struck is gone for good: the next one is left alone.
    pub(super) fn revive(&self) {
        self.lock().dead = false;
    }

    pub(super) fn writes(&self) -> u32 {
        self.lock().writes
    }

    pub(super) fn changes(&self) -> BTreeMap<Change, u32> {
        self.lock().changes.clone()
    }

    pub(super) fn requests(&self) -> BTreeMap<u16, u32> {
        self.lock().requests.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn has_struck(&self) -> bool {
        *self.struck.borrow()
    }

    /// What happens to a request on its way to an ECU.
    pub(super) fn request(&self, to: u16) -> Way {
        let mut state = self.lock();
        if state.dead {
            return Way::Drop;
        }
        if !state.armed {
            return Way::Forward;
        }
        let number = state.requests.entry(to).or_default();
        *number += 1;
        let number = *number;
        match self.point {
            Point::None | Point::Write { .. } | Point::File { .. } => Way::Forward,
            Point::Request { .. } if self.has_struck() => Way::Forward,
            Point::Request { ecu, .. } if state.awaiting == Some(ecu) && ecu == to => {
                // The request before had no answer that could be kept back.
                self.strike(state);
                Way::Drop
            }
            Point::Request { ecu, number: at, how } if (ecu, at) == (to, number) => match how {
                AtRequest::Before => {
                    self.strike(state);
                    Way::Drop
                }
                AtRequest::Unanswered | AtRequest::After => {
                    state.awaiting = Some(ecu);
                    Way::Forward
                }
            },
            Point::Ecu { ecu, number: at, how } if ecu == to && number >= at => {
                let first = number == at;
                if first {
                    self.struck.send_replace(true);
                }
                match how {
                    EcuFailure::Refuses if first => Way::Refuse,
                    EcuFailure::RefusesForEver => Way::Refuse,
                    EcuFailure::FallsSilent => Way::Drop,
                    EcuFailure::LosesPowerBefore if first => Way::CutPower,
                    EcuFailure::LosesPowerAfter if first => Way::CutPowerAfterwards,
                    EcuFailure::Refuses | EcuFailure::LosesPowerBefore | EcuFailure::LosesPowerAfter => {
                        Way::Forward
                    }
                }
            }
            Point::Request { .. } | Point::Ecu { .. } => Way::Forward,
        }
    }

    /// What happens to the final answer to a request on its way back.
    pub(super) fn answer(&self, from: u16) -> Way {
        let state = self.lock();
        match self.point {
            _ if state.dead => Way::Drop,
            Point::Request { how, .. } if state.awaiting == Some(from) && !self.has_struck() => match how {
                AtRequest::Before | AtRequest::Unanswered => {
                    self.strike(state);
                    Way::Drop
                }
                AtRequest::After => Way::ForwardLast,
            },
            Point::None
            | Point::Write { .. }
            | Point::File { .. }
            | Point::Request { .. }
            | Point::Ecu { .. } => Way::Forward,
        }
    }

    /// The answer that was the point has gone out.
    pub(super) fn answered(&self) {
        let state = self.lock();
        if !state.dead && !self.has_struck() {
            self.strike(state);
        }
    }

    fn strike(&self, mut state: MutexGuard<'_, State>) {
        while state.committing {
            state = self.committed.wait(state).unwrap();
        }
        state.dead = true;
        copy_disk(&self.state_dir, &self.copy);
        self.struck.send_replace(true);
    }

    fn before_write(&self, transaction: Option<&Transaction<'_>>) -> Result<(), JournalError> {
        let mut state = self.lock();
        if state.dead {
            return Err(JournalError::Closed);
        }
        if self.has_struck() || !state.armed {
            return Ok(());
        }
        state.writes += 1;
        state.wal_bytes = self.wal_bytes(&self.state_dir);
        if transaction.is_some_and(is_commit_record) {
            for number in 1..=ECUS {
                let banks = Vehicle::banks(&self.vehicle, number);
                if banks.running().version != self.new {
                    state.violations.push(format!("COMMIT while ECU {number} runs {:?}", banks.running()));
                }
            }
        }
        match self.point {
            Point::Write { number, how: AtWrite::Before } if number == state.writes => {
                self.strike(state);
                Err(JournalError::Closed)
            }
            Point::Write { number, how: AtWrite::Fails } if number == state.writes => {
                self.struck.send_replace(true);
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                Err(JournalError::Folder { folder: self.state_dir.clone(), source })
            }
            Point::None
            | Point::Write { .. }
            | Point::File { .. }
            | Point::Request { .. }
            | Point::Ecu { .. } => {
                state.committing = true;
                Ok(())
            }
        }
    }

    fn after_write(&self, torn: Option<&Path>) -> Result<(), JournalError> {
        let mut state = self.lock();
        state.committing = false;
        self.committed.notify_all();
        if self.has_struck() || !state.armed {
            return Ok(());
        }
        let (number, wal_before) = (state.writes, state.wal_bytes);
        match self.point {
            Point::Write { number: at, how } if at == number && how != AtWrite::Fails => {
                self.strike(state);
                if how == AtWrite::Torn {
                    self.tear(torn, wal_before);
                }
                Err(JournalError::Closed)
            }
            Point::None
            | Point::Write { .. }
            | Point::File { .. }
            | Point::Request { .. }
            | Point::Ecu { .. } => Ok(()),
        }
    }

    /// How to strike now, if the change that was counted last is the point.
    fn file_point(&self, state: &State, change: Change) -> Option<AtWrite> {
        match self.point {
            Point::File { change: at, number, how }
                if at == change && state.changes.get(&change) == Some(&number) =>
            {
                Some(how)
            }
            Point::None
            | Point::Write { .. }
            | Point::File { .. }
            | Point::Request { .. }
            | Point::Ecu { .. } => None,
        }
    }

    /// Leaves noise behind the middle of what was added to a file last, and a page of it behind its end: what was
    /// not synced can be anything after a power cut, and any length of it.
    fn garble(&self, path: &Path, whole: u64) {
        let path = self.copy.join(path.strip_prefix(&self.state_dir).unwrap());
        let mut content = std::fs::read(&path).unwrap();
        let from = usize::try_from(whole).unwrap().midpoint(content.len());
        content[from..].fill(0xA5);
        content.extend([0xA5; 4_096]);
        std::fs::write(path, content).unwrap();
    }

    /// Cuts what was written last in the middle.
    fn tear(&self, marker: Option<&Path>, wal_before: u64) {
        let (path, length) = match marker {
            Some(marker) => {
                let path = self.copy.join(marker.file_name().unwrap());
                let length = path.metadata().unwrap().len() / 2;
                (path, length)
            }
            None => {
                let wal_after = self.wal_bytes(&self.copy);
                assert!(wal_after > wal_before, "a transaction makes the WAL longer");
                (self.copy.join("journal.sqlite3-wal"), wal_before.midpoint(wal_after))
            }
        };
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
    }

    fn wal_bytes(&self, folder: &Path) -> u64 {
        folder.join("journal.sqlite3-wal").metadata().map_or(0, |metadata| metadata.len())
    }
}

impl Watch for Instants {
    fn at(&self, instant: Instant<'_>) -> Result<(), JournalError> {
        match instant {
            Instant::BeforeCommit(transaction) => self.before_write(Some(transaction)),
            Instant::BeforeMarker => self.before_write(None),
            Instant::AfterCommit => self.after_write(None),
            Instant::AfterMarker(path) => self.after_write(Some(path)),
        }
    }

    fn before_change(&self, change: Change, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.dead {
            return Err(io::Error::other("the power is cut"));
        }
        if self.has_struck() || !state.armed {
            return Ok(());
        }
        *state.changes.entry(change).or_default() += 1;
        state.file_bytes = path.metadata().map_or(0, |found| found.len());
        match self.file_point(&state, change) {
            Some(AtWrite::Before) => {
                self.strike(state);
                Err(io::Error::other("the power is cut"))
            }
            Some(AtWrite::Fails) => {
                self.struck.send_replace(true);
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(AtWrite::Torn | AtWrite::After) | None => Ok(()),
        }
    }

    fn after_change(&self, change: Change, path: &Path) -> io::Result<()> {
        let state = self.lock();
        if state.dead {
            return Err(io::Error::other("the power is cut"));
        }
        if self.has_struck() || !state.armed {
            return Ok(());
        }
        let whole = state.file_bytes;
        match self.file_point(&state, change) {
            Some(how @ (AtWrite::Torn | AtWrite::After)) => {
                self.strike(state);
                if how == AtWrite::Torn {
                    self.garble(path, whole);
                }
                Err(io::Error::other("the power is cut"))
            }
            Some(AtWrite::Before | AtWrite::Fails) | None => Ok(()),
        }
    }
}

fn is_commit_record(transaction: &Transaction<'_>) -> bool {
    let last = "SELECT name FROM record ORDER BY sequence DESC LIMIT 1";
    transaction.query_row(last, [], |row| row.get::<_, String>(0)).is_ok_and(|name| name == "commit")
}

/// Copies what is on the disk; the markers first, since they follow the journal. The lock and the index in
/// shared memory do not outlive a power cut.
fn copy_disk(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(|entry| !entry.file_name().to_string_lossy().contains("mark"));
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            copy_disk(&path, &to.join(name));
        } else if !name.to_string_lossy().ends_with("-shm") && !name.to_string_lossy().ends_with(".lock") {
            // A file that goes meanwhile was not there.
            let _ = std::fs::copy(path, to.join(name));
        }
    }
}
