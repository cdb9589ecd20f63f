//! What the gateway remembers across a power cut, in one SQLite file (WAL, `synchronous=FULL`): the boot
//! counter, the commands taken in, the messages not yet acknowledged, the records of the update.
//!
//! A write that fails is an error that stops the gateway: it must not act on what it could not store.
//! A journal that is damaged, older than it was, or gone is a fault that is kept and told (`fault.rs`).

mod error;
mod fault;
mod marker;
mod opening;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farrier_protocol::{EcuId, MsgId, Sha256, UnixMillis, UpTopic, VciField, VehicleMessage};
use farrier_vehicle_update::Record;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

pub use self::error::JournalError;
pub(crate) use self::fault::text as fault_text;
use self::marker::{Found, Marker};
use self::opening::{lock, prepare, prepare_new};
use crate::error_text::with_causes;

const NAME: &str = "journal.sqlite3";

/// How long the `msg_id` of an answered command is remembered, in milliseconds: 30 days.
const INBOX_RETENTION_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// What is stored in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// A step of the update. The first one of an update replaces those of the update before.
    pub record: Option<Record>,
    /// Messages to send; each closes the command that it answers.
    pub messages: Vec<VehicleMessage>,
    /// Commands that need no further work.
    pub closes: Vec<MsgId>,
    /// Digest of the VCI among the messages.
    pub vci_digest: Option<Sha256>,
    /// The fields that were asked for in it.
    pub vci_fields: Option<Vec<VciField>>,
    /// What ECUs have proved to run at the end of an update.
    pub accepted_versions: Vec<(EcuId, String)>,
}

/// A message that the server has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub sequence: i64,
    pub topic: UpTopic,
    pub payload: Vec<u8>,
}

/// A command that is taken in and not yet answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenCommand {
    pub payload: Vec<u8>,
    pub received_at: UnixMillis,
}

/// The journal; clones share one file.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    file: Arc<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    folder: PathBuf,
    /// Why no update may be taken on, until a workshop has cleared it.
    fault: Option<String>,
    /// Nothing once it is closed.
    open: Mutex<Option<Open>>,
    #[cfg(test)]
    watch: Option<Arc<dyn crate::watch::Watch>>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    /// The first write that failed. After it nothing is written any more: what a disk says that has failed to
    /// sync once cannot be trusted, and a later transaction must not outlive one that was lost.
    failed: Option<String>,
    /// Two gateways with one journal would each undo what the other does.
    _lock: std::fs::File,
}

impl Journal {
    /// Opens or makes the journal in a folder, and checks that it is sound. One that is not is put aside, a new
    /// one goes on with the boot counter, and [`Journal::fault`] says so from then on.
    pub(crate) fn open(folder: &Path) -> Result<Self, JournalError> {
        let path = folder.join(NAME);
        let in_folder = |source| JournalError::Folder { folder: folder.to_owned(), source };
        let lock = lock(&path)?;
        let found = marker::read(folder).map_err(in_folder)?;
        let connection = match prepare(&path, found) {
            Err(JournalError::Damaged { found: damage, .. }) => {
                tracing::error!(
                    damage,
                    "The journal is damaged: no update is taken on until a workshop clears the fault."
                );
                fault::record(&path, &damage).map_err(in_folder)?;
                let marker = match found {
                    Found::Marker(marker) => marker,
                    Found::Nothing | Found::Unreadable => Marker::default(),
                };
                prepare_new(&path, marker)?
            }
            prepared => prepared?,
        };
        // SQLite does not look at whether the names of its files could be made durable.
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(in_folder)?;
        let fault = fault::read(folder).map_err(in_folder)?;
        let open = Mutex::new(Some(Open { connection, failed: None, _lock: lock }));
        Ok(Self {
            file: Arc::new(File {
                path,
                folder: folder.to_owned(),
                fault,
                open,
                #[cfg(test)]
                watch: crate::watch::of(folder),
            }),
        })
    }

    /// Whether no gateway ever had a journal in this folder; one that is gone is another thing.
    pub(crate) fn was_never_in(folder: &Path) -> Result<bool, JournalError> {
        let found = marker::read(folder)
            .map_err(|source| JournalError::Folder { folder: folder.to_owned(), source })?;
        Ok(found == Found::Nothing && !folder.join(NAME).exists())
    }

    /// What [`Journal::fault`] says of a journal that another process has open.
    pub(crate) fn fault_in(folder: &Path) -> Result<Option<String>, JournalError> {
        fault::read(folder).map_err(|source| JournalError::Folder { folder: folder.to_owned(), source })
    }

    /// Why this gateway must not take on an update, if it must not: what was found when its journal was damaged.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.file.fault.as_deref()
    }

    /// Lets what is being written finish, and closes the file.
    pub(crate) async fn close(&self) {
        let file = self.file.clone();
        let closed = tokio::task::spawn_blocking(move || {
            file.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        closed.await.ok();
    }

    /// Counts this boot; the first is 1.
    pub(crate) async fn count_boot(&self) -> Result<u64, JournalError> {
        self.run_marked(|transaction| {
            let boot_seq = read_marker(transaction)?.boot_seq.saturating_add(1);
            write_fact(transaction, "boot_seq", &boot_seq.to_string())?;
            Ok(boot_seq)
        })
        .await
    }

    /// The version that each ECU ran when an update of it last ended well.
    pub(crate) async fn accepted_versions(&self) -> Result<Vec<(String, String)>, JournalError> {
        self.run(|_, transaction| {
            let mut statement = transaction.prepare("SELECT ecu_id, version FROM accepted_version")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .await
    }

    /// Digest of the VCI that was sent last.
    pub(crate) async fn vci_digest(&self) -> Result<Option<Sha256>, JournalError> {
        self.run(|file, transaction| {
            let Some(text) = read_fact(transaction, "vci_digest")? else { return Ok(Ok(None)) };
            Ok(text.parse().map(Some).map_err(|_| file.damaged(format!("VCI digest {text:?}"))))
        })
        .await?
    }

    /// The fields of the VCI that was sent last; nothing where they are not known.
    pub(crate) async fn vci_fields(&self) -> Result<Option<Vec<VciField>>, JournalError> {
        self.run(|_, transaction| {
            let text = read_fact(transaction, "vci_fields")?;
            Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
        })
        .await
    }

    /// The VCI that was sent last says no longer what the vehicle is.
    pub(crate) async fn forget_vci(&self) -> Result<(), JournalError> {
        self.run(|_, transaction| forget_vci(transaction)).await
    }

    /// Stores a command, unless it is known, so that it may be acknowledged. Whoever carries commands out
    /// finds it among [`Journal::open_commands`].
    pub(crate) async fn take_in(
        &self,
        msg_id: MsgId,
        payload: Vec<u8>,
        received_at: UnixMillis,
    ) -> Result<(), JournalError> {
        self.run(move |_, transaction| {
            transaction.execute(
                "DELETE FROM inbox WHERE open = 0 AND received_at_ms < ?1",
                params![received_at.0.saturating_sub(INBOX_RETENTION_MS)],
            )?;
            transaction.execute(
                "INSERT OR IGNORE INTO inbox (msg_id, payload, received_at_ms, open) VALUES (?1, ?2, ?3, 1)",
                params![msg_id.as_str(), payload, received_at.0],
            )?;
            Ok(())
        })
        .await
    }

    /// The commands that still need work, oldest first.
    pub(crate) async fn open_commands(&self) -> Result<Vec<OpenCommand>, JournalError> {
        self.run(|_, transaction| {
            let mut statement = transaction
                .prepare("SELECT payload, received_at_ms FROM inbox WHERE open = 1 ORDER BY rowid")?;
            let rows = statement.query_map([], |row| {
                Ok(OpenCommand { payload: row.get(0)?, received_at: UnixMillis(row.get(1)?) })
            })?;
            rows.collect()
        })
        .await
    }

    /// Stores an entry, all of it or nothing.
    pub(crate) async fn store(&self, entry: Entry) -> Result<(), JournalError> {
        if entry.record.is_some() {
            self.run_marked(move |transaction| store(transaction, &entry)).await
        } else {
            self.run(move |_, transaction| store(transaction, &entry)).await
        }
    }

    /// The oldest message that is not acknowledged.
    pub(crate) async fn next_outgoing(&self) -> Result<Option<Outgoing>, JournalError> {
        self.run(|file, transaction| {
            let query = "SELECT sequence, topic, payload FROM outbox ORDER BY sequence LIMIT 1";
            let row = transaction
                .query_row(query, [], |row| {
                    Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, Vec<u8>>(2)?))
                })
                .optional()?;
            let Some((sequence, topic, payload)) = row else { return Ok(Ok(None)) };
            Ok(match topic.parse() {
                Ok(topic) => Ok(Some(Outgoing { sequence, topic, payload })),
                Err(_) => Err(file.damaged(format!("a message for topic {topic:?}"))),
            })
        })
        .await?
    }

    /// The server acknowledged a message.
    pub(crate) async fn acknowledged(&self, sequence: i64) -> Result<(), JournalError> {
        self.run(move |_, transaction| {
            transaction.execute("DELETE FROM outbox WHERE sequence = ?1", params![sequence]).map(|_| ())
        })
        .await
    }

    /// The records of the last update, oldest first.
    pub(crate) async fn records(&self) -> Result<Vec<Record>, JournalError> {
        let rows: Vec<String> = self
            .run(|_, transaction| {
                let mut statement = transaction.prepare("SELECT content FROM record ORDER BY sequence")?;
                let rows = statement.query_map([], |row| row.get(0))?;
                rows.collect()
            })
            .await?;
        rows.iter()
            .map(|content| {
                serde_json::from_str(content)
                    .map_err(|error| self.file.damaged(format!("an update record that is none ({error})")))
            })
            .collect()
    }

    /// Does blocking work in a transaction, away from the threads that serve sockets.
    async fn run<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&File, &Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let file = self.file.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut open = file.open.lock().unwrap_or_else(PoisonError::into_inner);
            file.transact(&mut open, |transaction| work(&file, transaction))
        });
        done.await.map_err(|_| JournalError::Closed)?
    }

    /// The same, and notes beside the journal how far it has come: done only when both are durable.
    async fn run_marked<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let file = self.file.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut open = file.open.lock().unwrap_or_else(PoisonError::into_inner);
            let (value, marker) = file.transact(&mut open, |transaction| {
                let value = work(transaction)?;
                let mut marker = read_marker(transaction)?;
                marker.generation = marker.generation.saturating_add(1);
                write_fact(transaction, "generation", &marker.generation.to_string())?;
                Ok((value, marker))
            })?;
            file.unless_failed(&mut open, |_| file.mark(marker))?;
            Ok(value)
        });
        done.await.map_err(|_| JournalError::Closed)?
    }
}

impl File {
    /// Works on a journal that is open and has never failed; remembers if it fails now.
    fn unless_failed<T>(
        &self,
        open: &mut Option<Open>,
        work: impl FnOnce(&mut Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let Some(open) = open.as_mut() else { return Err(JournalError::Closed) };
        if let Some(found) = &open.failed {
            return Err(JournalError::Failed { path: self.path.clone(), found: found.clone() });
        }
        let done = work(&mut open.connection);
        open.failed = done.as_ref().err().map(|error| with_causes(error));
        done
    }

    fn transact<T>(
        &self,
        open: &mut Option<Open>,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        self.unless_failed(open, |connection| self.commit(connection, work))
    }

    fn commit<T>(
        &self,
        connection: &mut Connection,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let failed = |source| JournalError::Database { path: self.path.clone(), source };
        #[cfg(test)]
        let changes = connection.total_changes();
        let transaction = connection.transaction().map_err(failed)?;
        let value = work(&transaction).map_err(failed)?;
        #[cfg(test)]
        let watch = self.watch.as_ref().filter(|_| transaction.total_changes() > changes);
        #[cfg(test)]
        watch.map_or(Ok(()), |watch| watch.at(crate::watch::Instant::BeforeCommit(&transaction)))?;
        transaction.commit().map_err(failed)?;
        #[cfg(test)]
        watch.map_or(Ok(()), |watch| watch.at(crate::watch::Instant::AfterCommit))?;
        Ok(value)
    }

    fn mark(&self, marker: Marker) -> Result<(), JournalError> {
        let in_folder = |source| JournalError::Folder { folder: self.folder.clone(), source };
        #[cfg(test)]
        self.watch.as_ref().map_or(Ok(()), |watch| watch.at(crate::watch::Instant::BeforeMarker))?;
        marker.write(&self.folder).map_err(in_folder)?;
        #[cfg(test)]
        self.watch.as_ref().map_or(Ok(()), |watch| {
            watch.at(crate::watch::Instant::AfterMarker(&marker.path(&self.folder)))
        })?;
        Ok(())
    }

    fn damaged(&self, found: String) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), found }
    }
}

fn store(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    if let Some(record) = &entry.record {
        if matches!(record, Record::Accepted(_)) {
            transaction.execute("DELETE FROM record", [])?;
        }
        let content = serde_json::to_string(record)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        transaction.execute(
            "INSERT INTO record (name, content, sha256) VALUES (?1, ?2, ?3)",
            params![record.name(), content, Sha256::of(content.as_bytes()).to_string()],
        )?;
    }
    if matches!(entry.record, Some(Record::Process | Record::Undo { .. })) {
        // ECUs are about to change.
        forget_vci(transaction)?;
    }
    for message in &entry.messages {
        transaction.execute(
            "INSERT INTO outbox (topic, payload) VALUES (?1, ?2)",
            params![message.topic().name(), message.to_json()],
        )?;
        if let Some(command) = message.correlation_id() {
            close(transaction, command)?;
        }
    }
    for command in &entry.closes {
        close(transaction, command)?;
    }
    if let Some(digest) = &entry.vci_digest {
        write_fact(transaction, "vci_digest", &digest.to_string())?;
    }
    if let Some(fields) = &entry.vci_fields {
        let fields = serde_json::to_string(fields)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        write_fact(transaction, "vci_fields", &fields)?;
    }
    for (ecu_id, version) in &entry.accepted_versions {
        transaction.execute(
            "INSERT OR REPLACE INTO accepted_version (ecu_id, version) VALUES (?1, ?2)",
            params![ecu_id.as_str(), version],
        )?;
    }
    Ok(())
}

fn forget_vci(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM fact WHERE name = 'vci_digest'", []).map(|_| ())
}

fn close(transaction: &Transaction<'_>, command: &MsgId) -> rusqlite::Result<()> {
    transaction.execute("UPDATE inbox SET open = 0 WHERE msg_id = ?1", params![command.as_str()]).map(|_| ())
}

fn read_fact(transaction: &Transaction<'_>, name: &str) -> rusqlite::Result<Option<String>> {
    transaction
        .query_row("SELECT value FROM fact WHERE name = ?1", params![name], |row| row.get(0))
        .optional()
}

fn write_fact(transaction: &Transaction<'_>, name: &str, value: &str) -> rusqlite::Result<()> {
    transaction
        .execute(
            "INSERT OR REPLACE INTO fact (name, value, sha256) VALUES (?1, ?2, ?3)",
            params![name, value, checksum_of_fact(name, value)],
        )
        .map(|_| ())
}

fn checksum_of_fact(name: &str, value: &str) -> String {
    Sha256::of(format!("{name}={value}").as_bytes()).to_string()
}

/// How far the journal has come, by its own account.
fn read_marker(transaction: &Transaction<'_>) -> rusqlite::Result<Marker> {
    let number = |name| {
        let text = read_fact(transaction, name)?.unwrap_or_default();
        text.parse().map_err(|error: std::num::ParseIntError| {
            rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
        })
    };
    Ok(Marker { generation: number("generation")?, boot_seq: number("boot_seq")? })
}

#[cfg(test)]
mod tests;
