//! What the gateway remembers across a power cut, in one SQLite file (WAL, `synchronous=FULL`): the boot
//! counter, the commands taken in, the messages not yet acknowledged, the records of the update.
//!
//! A write that fails is an error that stops the gateway: it must not act on what it could not store.

use std::fs::TryLockError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farrier_protocol::{MsgId, Sha256, UnixMillis, UpTopic, VehicleMessage};
use farrier_vehicle_update::Record;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// The layout of the file; a newer gateway may raise it, an older one must not open it then.
const SCHEMA_VERSION: i64 = 1;

/// How long the `msg_id` of an answered command is remembered, in milliseconds: 30 days.
const INBOX_RETENTION_MS: i64 = 30 * 24 * 3_600 * 1_000;

const SCHEMA: &str = "
    CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE inbox (
        msg_id TEXT PRIMARY KEY, payload BLOB NOT NULL, received_at_ms INTEGER NOT NULL, open INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL
    ) STRICT;
    CREATE TABLE record (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, content TEXT NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;
";

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
    /// Nothing once it is closed.
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    /// Two gateways with one journal would each undo what the other does.
    _lock: std::fs::File,
}

impl Journal {
    /// Opens or makes the journal in a folder, and checks that it is sound.
    pub(crate) fn open(folder: &Path) -> Result<Self, JournalError> {
        let path = folder.join("journal.sqlite3");
        let lock = lock(&path)?;
        let open = Open { connection: prepare(&path)?, _lock: lock };
        Ok(Self { file: Arc::new(File { path, open: Mutex::new(Some(open)) }) })
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
        self.run(|file, transaction| {
            let text = read_fact(transaction, "boot_seq")?;
            let earlier = match text {
                None => 0,
                Some(text) => match text.parse::<u64>() {
                    Ok(earlier) => earlier,
                    Err(_) => return Ok(Err(file.damaged(format!("boot counter {text:?}")))),
                },
            };
            let boot_seq = earlier.saturating_add(1);
            write_fact(transaction, "boot_seq", &boot_seq.to_string())?;
            Ok(Ok(boot_seq))
        })
        .await?
    }

    /// Digest of the VCI that was sent last.
    pub(crate) async fn vci_digest(&self) -> Result<Option<Sha256>, JournalError> {
        self.run(|file, transaction| {
            let Some(text) = read_fact(transaction, "vci_digest")? else { return Ok(Ok(None)) };
            Ok(text.parse().map(Some).map_err(|_| file.damaged(format!("VCI digest {text:?}"))))
        })
        .await?
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
        self.run(move |_, transaction| store(transaction, &entry)).await
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
            let failed = |source| JournalError::Database { path: file.path.clone(), source };
            let mut open = file.open.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(open) = open.as_mut() else { return Err(JournalError::Closed) };
            let transaction = open.connection.transaction().map_err(failed)?;
            let value = work(&file, &transaction).map_err(failed)?;
            transaction.commit().map_err(failed)?;
            Ok(value)
        });
        done.await.map_err(|_| JournalError::Closed)?
    }
}

impl File {
    fn damaged(&self, found: String) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), found }
    }
}

fn lock(journal: &Path) -> Result<std::fs::File, JournalError> {
    let path = journal.with_extension("lock");
    let failed = |source| JournalError::Lock { path: path.clone(), source };
    let file = std::fs::File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { path: journal.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn prepare(path: &Path) -> Result<Connection, JournalError> {
    let failed = |source| JournalError::Database { path: path.to_owned(), source };
    let connection = Connection::open(path).map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    let sound: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if sound != "ok" {
        return Err(JournalError::Damaged { path: path.to_owned(), found: sound });
    }
    let layout: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    match layout {
        SCHEMA_VERSION => {}
        0 => connection.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;")).map_err(failed)?,
        found => return Err(JournalError::Layout { path: path.to_owned(), found }),
    }
    Ok(connection)
}

fn store(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    if let Some(record) = &entry.record {
        if matches!(record, Record::Accepted(_)) {
            transaction.execute("DELETE FROM record", [])?;
        }
        let content = serde_json::to_string(record)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        transaction
            .execute("INSERT INTO record (name, content) VALUES (?1, ?2)", params![record.name(), content])?;
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
    Ok(())
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
        .execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?1, ?2)", params![name, value])
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use farrier_protocol::{ErrorCode, ErrorResponse, LongText, ProtoVer, VehicleBody};
    use farrier_vehicle_update::Ending;

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

    #[tokio::test]
    async fn records_come_back_in_order_with_what_was_stored_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let digest = Sha256::of(b"vci");
        let first =
            Entry { record: Some(Record::Transferred), messages: vec![message(1)], ..Entry::default() };
        let second = Entry {
            record: Some(Record::Ended(Ending::Committed)),
            vci_digest: Some(digest),
            ..Entry::default()
        };
        journal.store(first).await.unwrap();
        journal.store(second).await.unwrap();
        drop(journal);

        let journal = Journal::open(folder.path()).unwrap();
        let records = journal.records().await.unwrap();
        assert_eq!(records, [Record::Transferred, Record::Ended(Ending::Committed)]);
        assert!(journal.next_outgoing().await.unwrap().is_some());
        assert_eq!(journal.vci_digest().await.unwrap(), Some(digest));
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

    #[tokio::test]
    async fn a_damaged_journal_is_reported_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.sqlite3");
        std::fs::write(&path, b"this is no database, it only lies where one should be".repeat(100)).unwrap();
        assert!(Journal::open(folder.path()).is_err());
        assert!(std::fs::read(&path).unwrap().starts_with(b"this is no database"));

        std::fs::remove_file(&path).unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        journal.store(Entry { record: Some(Record::Commit), ..Entry::default() }).await.unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("UPDATE record SET content = '{\"Comm'").unwrap();
        assert!(matches!(journal.records().await, Err(JournalError::Damaged { .. })));

        other.execute_batch("PRAGMA user_version = 9").unwrap();
        journal.close().await;
        assert!(matches!(Journal::open(folder.path()), Err(JournalError::Layout { found: 9, .. })));
    }
}
