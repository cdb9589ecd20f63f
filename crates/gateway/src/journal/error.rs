//! Why a journal cannot be used.

use std::path::PathBuf;

use super::opening::SCHEMA_VERSION;

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
    /// A write failed before.
    #[error("the journal {path} is not written any more since a write failed ({found}); check the disk")]
    Failed {
        /// The file.
        path: PathBuf,
        /// What happened then.
        found: String,
    },
    /// It is closed already, or the thread that wrote did not return.
    #[error("the journal is closed; restart the gateway")]
    Closed,
}
