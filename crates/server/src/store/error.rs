//! Why the store does not do what it is asked.

use std::path::PathBuf;

/// Why the store could not do what was asked. Then nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error(
        "cannot open the store {path}: check that the folder exists, has room, and that this user may write there"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The PostgreSQL server cannot be reached, or does not let us in.
    #[error(
        "cannot open the store {address}: check that PostgreSQL runs there, that the database exists, and that user \
         and password are right"
    )]
    Connect {
        /// Host, port and database; never the password.
        address: String,
        /// What PostgreSQL or the network said.
        #[source]
        source: Box<postgres::Error>,
    },
    /// The certificates by which the PostgreSQL server is checked cannot be used.
    #[error(
        "cannot use the certificates in {path}: expected PEM with the authority that issued PostgreSQL's certificate; \
         correct sslrootcert in the store's address"
    )]
    Certificates {
        /// The file.
        path: PathBuf,
    },
    /// The store was written by a newer version.
    #[error(
        "the store {path} has schema {found}, expected at most {expected}: run the newer version that wrote it"
    )]
    Newer {
        /// The file or database.
        path: String,
        /// Its schema.
        found: i64,
        /// The newest that this version knows.
        expected: i64,
    },
    /// A statement failed.
    #[error("the store refused a statement")]
    Statement(#[from] rusqlite::Error),
    /// A statement failed on PostgreSQL.
    #[error("the store refused a statement")]
    PostgresStatement(#[source] Box<postgres::Error>),
    /// Another change of the same rows was under way, on this server or another.
    #[error("another change of the same rows was under way; try again")]
    Conflict(#[source] Box<postgres::Error>),
    /// The connection to PostgreSQL broke. Whether the change was made is not known: it was not acknowledged.
    #[error("the connection to PostgreSQL broke; try again")]
    ConnectionLost(#[source] Box<postgres::Error>),
    /// A value in the store is not what this program writes.
    #[error("the store holds {found:?} where {expected} is expected; restore it from a backup")]
    Damaged {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The job was not committed, or the store is closed.
    #[error("the store did not commit the change")]
    NotCommitted,
}

impl StoreError {
    /// Whether the disk or the file itself is at fault: then nothing that follows can be relied on either.
    /// A full disk is not: SQLite undoes the change, and there may be room later.
    pub(super) fn is_fatal(&self) -> bool {
        match self {
            Self::Statement(error) => is_fatal(error),
            Self::Open { .. }
            | Self::Connect { .. }
            | Self::Certificates { .. }
            | Self::Newer { .. }
            | Self::PostgresStatement(_)
            | Self::Conflict(_)
            | Self::ConnectionLost(_)
            | Self::Damaged { .. }
            | Self::NotCommitted => false,
        }
    }
}

/// Whether SQLite's file can no longer be relied on.
pub(super) fn is_fatal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            rusqlite::ErrorCode::SystemIoFailure
                | rusqlite::ErrorCode::DatabaseCorrupt
                | rusqlite::ErrorCode::NotADatabase
        )
    )
}
