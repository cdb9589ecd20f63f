//! Opening a journal: it is for one gateway alone, whole, and as far as its markers say; or it is damaged.

use std::fs::TryLockError;
use std::path::Path;

use farrier_protocol::Sha256;
use farrier_vehicle_update::Record;
use rusqlite::{Connection, ErrorCode};

use super::marker::{Found, Marker};
use super::{JournalError, checksum_of_fact, read_marker, write_fact};

/// The layout of the file; a newer gateway may raise it, an older one must not open it then.
pub(super) const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT;
    CREATE TABLE accepted_version (ecu_id TEXT PRIMARY KEY, version TEXT NOT NULL) STRICT;
    CREATE TABLE inbox (
        msg_id TEXT PRIMARY KEY, payload BLOB NOT NULL, received_at_ms INTEGER NOT NULL, open INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload BLOB NOT NULL
    ) STRICT;
    CREATE TABLE record (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, content TEXT NOT NULL,
        sha256 TEXT NOT NULL
    ) STRICT;
    PRAGMA user_version = 1;
";

pub(super) fn lock(journal: &Path) -> Result<std::fs::File, JournalError> {
    let path = journal.with_extension("lock");
    let failed = |source| JournalError::Lock { path: path.clone(), source };
    let file = std::fs::File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { path: journal.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Opens a journal that is there, or makes the first one. `marker` says whether there ever was one.
pub(super) fn prepare(path: &Path, marker: Found) -> Result<Connection, JournalError> {
    let failed = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => damaged(path, &source.to_string()),
        _ => JournalError::Database { path: path.to_owned(), source },
    };
    let connection = connect(path).map_err(failed)?;
    let sound: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if sound != "ok" {
        return Err(damaged(path, &sound));
    }
    let layout: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    match (layout, marker) {
        (SCHEMA_VERSION, _) => {
            let has_come_to = inspect(&connection).map_err(failed)?.map_err(|found| damaged(path, &found))?;
            match marker {
                Found::Marker(marker) if marker > has_come_to => {
                    let found = format!("an earlier state of it ({has_come_to:?}, expected {marker:?})");
                    Err(damaged(path, &found))
                }
                Found::Marker(_) | Found::Nothing | Found::Unreadable => {
                    make_durable(&connection).map_err(failed)?;
                    Ok(connection)
                }
            }
        }
        (0, Found::Nothing) => {
            fill(&connection, Marker::default()).map_err(failed)?;
            Ok(connection)
        }
        (0, Found::Marker(_) | Found::Unreadable) => Err(damaged(path, "none, although there was one")),
        (found, _) => Err(JournalError::Layout { path: path.to_owned(), found }),
    }
}

/// Makes a journal in place of one that was put aside; it goes on from what is known of that one.
pub(super) fn prepare_new(path: &Path, marker: Marker) -> Result<Connection, JournalError> {
    let failed = |source| JournalError::Database { path: path.to_owned(), source };
    let connection = connect(path).map_err(failed)?;
    fill(&connection, marker).map_err(failed)?;
    Ok(connection)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    let mut mode = String::new();
    {
        let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
        let mut rows = statement.query([])?;
        // Only behind the last row SQLite says whether the change could be synced.
        while let Some(row) = rows.next()? {
            mode = row.get(0)?;
        }
    }
    if mode != "wal" {
        let found = format!("expected the journal mode wal, found {mode}");
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
        return Err(rusqlite::Error::SqliteFailure(failure, Some(found)));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// After a sync that failed, what was read can be nowhere but in the kernel's memory, and be called clean there. It
/// is written anew before anything is done because of it.
fn make_durable(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

fn fill(connection: &Connection, marker: Marker) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(SCHEMA)?;
    write_fact(&transaction, "generation", &marker.generation.to_string())?;
    write_fact(&transaction, "boot_seq", &marker.boot_seq.to_string())?;
    transaction.commit()
}

fn damaged(path: &Path, found: &str) -> JournalError {
    JournalError::Damaged { path: path.to_owned(), found: found.to_owned() }
}

/// How far the journal has come, or what in it is not as it was written. SQLite keeps no checksum of what is in
/// its pages, so the facts and records carry their own.
fn inspect(connection: &Connection) -> rusqlite::Result<Result<Marker, String>> {
    let transaction = connection.unchecked_transaction()?;
    let mut facts = transaction.prepare("SELECT name, value, sha256 FROM fact")?;
    let mut rows = facts.query([])?;
    while let Some(row) = rows.next()? {
        let (name, value, sha256): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if checksum_of_fact(&name, &value) != sha256 {
            return Ok(Err(format!("{name} {value:?}, which has another checksum")));
        }
    }
    let mut records = transaction.prepare("SELECT name, content, sha256 FROM record ORDER BY sequence")?;
    let mut rows = records.query([])?;
    let mut earlier: Option<Record> = None;
    while let Some(row) = rows.next()? {
        let (name, content, sha256): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let record = serde_json::from_str::<Record>(&content).ok();
        let Some(record) = record.filter(|_| Sha256::of(content.as_bytes()).to_string() == sha256) else {
            return Ok(Err(format!("a record {name:?} that is not as it was written")));
        };
        if !record.may_follow(earlier.as_ref()) {
            let after = earlier.as_ref().map_or("nothing", Record::name);
            return Ok(Err(format!("the record {:?} after {after:?}", record.name())));
        }
        earlier = Some(record);
    }
    read_marker(&transaction).map(Ok)
}
