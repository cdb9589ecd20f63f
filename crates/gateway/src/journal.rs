//! What the gateway remembers across a power cut, in one SQLite file (WAL, `synchronous=FULL`): the boot
//! counter, the commands taken in, the messages not yet acknowledged, the records of the update.
//!
//! A write that fails is an error that stops the gateway: it must not act on what it could not store.
//! A journal that is damaged, older than it was, or gone is a fault that is kept and told (`fault.rs`).

mod fault;
mod marker;
mod opening;
#[cfg(test)]
pub(crate) mod watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farrier_protocol::{EcuId, MsgId, Sha256, UnixMillis, UpTopic, VciField, VehicleMessage};
use farrier_vehicle_update::Record;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use self::marker::{Found, Marker};
use self::opening::{SCHEMA_VERSION, lock, prepare, prepare_new};

const NAME: &str = "journal.sqlite3";

/// How long the `msg_id` of an answered command is remembered, in milliseconds: 30 days.
const INBOX_RETENTION_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// The journal cannot be used; the gateway stops.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be opened, read or written.
    #[error("the journal {path} cannot be read or written; check the disk and that no other gateway uses it")]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// The file is not whole, or holds what no gateway wrote.
    #[error(
        "expected a sound journal at {path}, found {found}; it is damaged: have the vehicle checked before the file is removed"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// The file comes from another version of the gateway.
    #[error(
        "expected journal layout {SCHEMA_VERSION} at {path}, found {found}; install the gateway version that wrote it"
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: i64,
    },
    /// Another gateway works with it.
    #[error(
        "expected the journal {path} for this gateway alone, found another at work; stop that one or name another state_dir"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A file beside it cannot be read or written.
    #[error("cannot read or write the files of the journal in {folder}; check the disk")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file cannot be locked.
    #[error("cannot lock {path}; name a folder on a writable disk as state_dir")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is closed already, or the thread that wrote did not return.
    #[error("the journal is closed; restart the gateway")]
    Closed,
}

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
    watch: Option<Arc<dyn watch::Watch>>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
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
        let fault = fault::read(folder).map_err(in_folder)?;
        let open = Mutex::new(Some(Open { connection, _lock: lock }));
        Ok(Self {
            file: Arc::new(File {
                path,
                folder: folder.to_owned(),
                fault,
                open,
                #[cfg(test)]
                watch: watch::of(folder),
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
            file.mark(marker)?;
            Ok(value)
        });
        done.await.map_err(|_| JournalError::Closed)?
    }
}

impl File {
    fn transact<T>(
        &self,
        open: &mut Option<Open>,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, JournalError> {
        let failed = |source| JournalError::Database { path: self.path.clone(), source };
        let Some(open) = open.as_mut() else { return Err(JournalError::Closed) };
        #[cfg(test)]
        let changes = open.connection.total_changes();
        let transaction = open.connection.transaction().map_err(failed)?;
        let value = work(&transaction).map_err(failed)?;
        #[cfg(test)]
        let watch = self.watch.as_ref().filter(|_| transaction.total_changes() > changes);
        #[cfg(test)]
        watch.map_or(Ok(()), |watch| watch.at(watch::Instant::BeforeCommit(&transaction)))?;
        transaction.commit().map_err(failed)?;
        #[cfg(test)]
        watch.map_or(Ok(()), |watch| watch.at(watch::Instant::AfterCommit))?;
        Ok(value)
    }

    fn mark(&self, marker: Marker) -> Result<(), JournalError> {
        let in_folder = |source| JournalError::Folder { folder: self.folder.clone(), source };
        #[cfg(test)]
        self.watch.as_ref().map_or(Ok(()), |watch| watch.at(watch::Instant::BeforeMarker))?;
        marker.write(&self.folder).map_err(in_folder)?;
        #[cfg(test)]
        self.watch
            .as_ref()
            .map_or(Ok(()), |watch| watch.at(watch::Instant::AfterMarker(&marker.path(&self.folder))))?;
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
mod tests {
    use farrier_protocol::{
        ErrorCode, ErrorResponse, LongText, ProtoVer, ServerBody, ServerMessage, VehicleBody,
    };
    use farrier_vehicle_update::{Ending, Plan};

    use super::*;

    fn message(number: u32) -> VehicleMessage {
        VehicleMessage {
            msg_id: format!("VMG-{number}").parse().unwrap(),
            proto_ver: ProtoVer::CURRENT,
            vehicle_id: "VEH_001".parse().unwrap(),
            gateway_id: "CCU_001".parse().unwrap(),
            ts: UnixMillis(5),
            body: VehicleBody::ErrorResponse(ErrorResponse {
                correlation_id: format!("SRV-{number}").parse().unwrap(),
                code: ErrorCode::Busy,
                detail: LongText::beginning_of("later"),
                failed_ecus: None,
                pkg_ids: None,
                retry_after_s: Some(30),
            }),
        }
    }

    async fn take_in(journal: &Journal, number: u32) {
        let msg_id = format!("SRV-{number}").parse().unwrap();
        journal.take_in(msg_id, number.to_string().into_bytes(), UnixMillis(1)).await.unwrap()
    }

    #[tokio::test]
    async fn boots_are_counted_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        for expected in 1..=3 {
            let journal = Journal::open(folder.path()).unwrap();
            assert_eq!(journal.count_boot().await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_command_is_taken_in_once_and_stays_open_until_it_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        for number in [1, 2, 1] {
            take_in(&journal, number).await;
        }
        drop(journal);

        let journal = Journal::open(folder.path()).unwrap();
        let open = journal.open_commands().await.unwrap();
        assert_eq!(open.iter().map(|command| command.payload.as_slice()).collect::<Vec<_>>(), [b"1", b"2"]);
        journal.store(Entry { messages: vec![message(1)], ..Entry::default() }).await.unwrap();
        assert_eq!(journal.open_commands().await.unwrap().len(), 1);
        take_in(&journal, 1).await;
        assert_eq!(journal.open_commands().await.unwrap().len(), 1, "an answered command stays known");
    }

    #[tokio::test]
    async fn a_message_is_sent_again_with_the_same_content_until_it_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let entry = Entry { messages: vec![message(1), message(2)], ..Entry::default() };
        journal.store(entry).await.unwrap();
        let first = journal.next_outgoing().await.unwrap().unwrap();
        drop(journal);

        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.next_outgoing().await.unwrap(), Some(first.clone()));
        assert_eq!((first.topic, first.payload), (UpTopic::Error, message(1).to_json()));
        journal.acknowledged(first.sequence).await.unwrap();
        let second = journal.next_outgoing().await.unwrap().unwrap();
        assert_eq!(second.payload, message(2).to_json());
        journal.acknowledged(second.sequence).await.unwrap();
        assert_eq!(journal.next_outgoing().await.unwrap(), None);
    }

    fn accepted() -> Record {
        let start = r#"{"msg_id":"SRV-1","proto_ver":"1.0","type":"StartDownload","vehicle_id":"V","gateway_id":"G",
            "correlation_id":"VMG-1","expires_at_ms":9,"update_id":"U","failure_report":true,
            "transfer":{"protocol":"HTTPS","allow_chunking":true,"max_kb_per_msg":1,"base_url":"https://localhost"},
            "packages":[{"pkg_id":"P","target_component":"ecu_1","target_version":"2","size_bytes":1,
            "hash_sha256":"HASH","url":"/v1/packages/P/HASH","image_sha256":"HASH","image_size_bytes":1,
            "hw_part_no":"H","install_order":1}]}"#;
        let start = start.replace("HASH", &Sha256::of(b"image").to_string());
        let message = ServerMessage::parse(start.as_bytes()).unwrap();
        let ServerBody::StartDownload(start) = message.body else { panic!("{message:?}") };
        Record::Accepted(Box::new(Plan::new(message.msg_id, UnixMillis(1), start).unwrap()))
    }

    async fn store_record(journal: &Journal, record: Record) {
        journal.store(Entry { record: Some(record), ..Entry::default() }).await.unwrap();
    }

    #[tokio::test]
    async fn records_come_back_in_order_with_what_was_stored_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let digest = Sha256::of(b"vci");
        let first = Entry { record: Some(accepted()), messages: vec![message(1)], ..Entry::default() };
        let second = Entry {
            record: Some(Record::Ended(Ending::Cancelled)),
            vci_digest: Some(digest),
            accepted_versions: vec![("ecu_1".parse().unwrap(), "2".to_owned())],
            ..Entry::default()
        };
        journal.store(first).await.unwrap();
        journal.store(second).await.unwrap();
        drop(journal);

        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.fault(), None);
        let records = journal.records().await.unwrap();
        assert_eq!(records, [accepted(), Record::Ended(Ending::Cancelled)]);
        assert!(journal.next_outgoing().await.unwrap().is_some());
        assert_eq!(journal.vci_digest().await.unwrap(), Some(digest));
        assert_eq!(journal.accepted_versions().await.unwrap(), [("ecu_1".to_owned(), "2".to_owned())]);
    }

    #[tokio::test]
    async fn a_write_that_fails_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let other = Connection::open(folder.path().join("journal.sqlite3")).unwrap();
        other.execute_batch("DROP TABLE outbox").unwrap();
        let stored = journal
            .store(Entry { record: Some(Record::Commit), messages: vec![message(1)], ..Entry::default() })
            .await;
        assert!(matches!(stored, Err(JournalError::Database { .. })));
        assert_eq!(journal.records().await.unwrap(), [], "nothing of the transaction is kept");
    }

    #[tokio::test]
    async fn a_journal_belongs_to_one_gateway_until_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        assert!(matches!(Journal::open(folder.path()), Err(JournalError::InUse { .. })));
        journal.close().await;
        assert!(matches!(journal.records().await, Err(JournalError::Closed)));
        Journal::open(folder.path()).unwrap();
    }

    /// A journal with an update under way, closed.
    async fn with_an_update(folder: &Path) -> PathBuf {
        let journal = Journal::open(folder).unwrap();
        assert_eq!(journal.count_boot().await.unwrap(), 1);
        assert_eq!(journal.count_boot().await.unwrap(), 2);
        store_record(&journal, accepted()).await;
        store_record(&journal, Record::Synced(Vec::new())).await;
        journal.close().await;
        folder.join("journal.sqlite3")
    }

    /// The damage that a gateway finds in this folder, again at each start; its boot counter goes on.
    async fn fault(folder: &Path, boot: u64) -> String {
        for boot in [boot, boot + 1] {
            let journal = Journal::open(folder).unwrap();
            assert!(journal.fault().is_some());
            assert_eq!(journal.records().await.unwrap(), []);
            assert_eq!(journal.count_boot().await.unwrap(), boot);
            journal.close().await;
        }
        let found = Journal::open(folder).unwrap().fault().unwrap().to_owned();
        std::fs::remove_file(folder.join("journal.fault")).unwrap();
        assert_eq!(Journal::open(folder).unwrap().fault(), None, "a workshop can clear it");
        found
    }

    #[tokio::test]
    async fn garbage_in_place_of_the_journal_is_a_fault_and_kept_for_the_workshop() {
        let folder = tempfile::tempdir().unwrap();
        let path = with_an_update(folder.path()).await;
        let garbage = b"this is no database, it only lies where one should be".repeat(100);
        std::fs::write(&path, &garbage).unwrap();
        assert!(fault(folder.path(), 3).await.contains("not a database"));
        assert_eq!(std::fs::read(folder.path().join("journal.damaged.sqlite3")).unwrap(), garbage);
    }

    #[tokio::test]
    async fn a_journal_that_is_gone_or_empty_is_a_fault_and_not_a_vehicle_without_an_update() {
        for damage in ["gone", "empty", "gone, one marker too", "gone, markers unreadable"] {
            let folder = tempfile::tempdir().unwrap();
            let path = with_an_update(folder.path()).await;
            if damage == "empty" {
                std::fs::write(&path, "").unwrap()
            } else {
                std::fs::remove_file(&path).unwrap()
            }
            let mut boot = 3;
            if damage.contains("too") {
                std::fs::remove_file(folder.path().join("journal.mark0")).unwrap();
            }
            if damage.contains("unreadable") {
                std::fs::write(folder.path().join("journal.mark0"), "x").unwrap();
                std::fs::write(folder.path().join("journal.mark1"), "x").unwrap();
                boot = 1;
            }
            assert!(fault(folder.path(), boot).await.contains("there was one"), "{damage}");
        }
    }

    #[tokio::test]
    async fn a_journal_cut_at_any_page_or_byte_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read(with_an_update(folder.path()).await).unwrap();
        for length in (1..whole.len()).step_by(1_000).chain((4_096..whole.len()).step_by(4_096)) {
            let folder = tempfile::tempdir().unwrap();
            let path = with_an_update(folder.path()).await;
            std::fs::write(&path, &whole[..length]).unwrap();
            fault(folder.path(), 3).await;
        }
    }

    #[tokio::test]
    async fn a_changed_byte_in_a_record_or_in_the_boot_counter_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read(with_an_update(folder.path()).await).unwrap();
        for text in ["\"update_id\":\"U\"", "boot_seq2", "{\"Synced\":[]}"] {
            let at = whole.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = with_an_update(folder.path()).await;
            let mut damaged = std::fs::read(&path).unwrap();
            assert_eq!(damaged.len(), whole.len());
            damaged[at + text.len() - 2] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            fault(folder.path(), 3).await;
        }
    }

    #[tokio::test]
    async fn a_page_of_zeros_or_noise_is_never_taken_for_a_vehicle_without_an_update() {
        let folder = tempfile::tempdir().unwrap();
        let whole = std::fs::read(with_an_update(folder.path()).await).unwrap();
        for page in 0..whole.len() / 4_096 {
            for noise in [0, 0xA5] {
                let folder = tempfile::tempdir().unwrap();
                let path = with_an_update(folder.path()).await;
                let mut damaged = std::fs::read(&path).unwrap();
                damaged[page * 4_096..(page + 1) * 4_096].fill(noise);
                std::fs::write(&path, damaged).unwrap();
                let journal = Journal::open(folder.path()).unwrap();
                let records = journal.records().await.unwrap();
                assert!(journal.fault().is_some() || records.len() == 2, "page {page}, {noise}");
            }
        }
    }

    #[tokio::test]
    async fn an_older_copy_of_the_journal_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let path = with_an_update(folder.path()).await;
        let older = std::fs::read(&path).unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        store_record(&journal, Record::Transferred).await;
        journal.close().await;
        std::fs::write(&path, older).unwrap();
        assert!(fault(folder.path(), 3).await.contains("an earlier state"));
    }

    #[tokio::test]
    async fn a_journal_that_is_gone_is_not_one_that_never_was() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Journal::was_never_in(folder.path()).unwrap());
        let path = with_an_update(folder.path()).await;
        std::fs::remove_file(path).unwrap();
        assert!(!Journal::was_never_in(folder.path()).unwrap());
        assert_eq!(Journal::fault_in(folder.path()).unwrap(), None);
        Journal::open(folder.path()).unwrap().close().await;
        assert!(Journal::fault_in(folder.path()).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_journal_whose_markers_are_lost_is_sound() {
        let folder = tempfile::tempdir().unwrap();
        with_an_update(folder.path()).await;
        std::fs::remove_file(folder.path().join("journal.mark0")).unwrap();
        std::fs::write(folder.path().join("journal.mark1"), "x").unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!((journal.fault(), journal.records().await.unwrap().len()), (None, 2));
    }

    #[tokio::test]
    async fn a_journal_of_another_layout_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = with_an_update(folder.path()).await;
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
        assert!(matches!(Journal::open(folder.path()), Err(JournalError::Layout { found: 9, .. })));
    }
}
