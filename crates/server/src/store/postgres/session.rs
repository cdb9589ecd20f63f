//! One connection to PostgreSQL and its transactions; made again when it breaks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::error::SqlState;
use postgres::types::private::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use postgres::{Client, NoTls, Statement};

use super::address::PostgresAddress;
use crate::store::tx::Value;
use crate::store::{Committed, StoreError, Tx};

/// How long a job waits for PostgreSQL to come back before it fails. Later jobs fail at once until it is back.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// A lock that is not had by then belongs to somebody who hangs; a transaction that is left open ends, with its locks.
const SETTINGS: &str = "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; \
                        SET statement_timeout = '60s'; SET client_encoding = 'UTF8'; SET jit = off";
/// Each statement sees what was committed before it: whoever has waited for a lock sees what its holder did.
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// An open connection with the statements that were prepared on it.
pub(crate) struct Session {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

impl Session {
    pub(crate) fn connect(address: &PostgresAddress) -> Result<Self, StoreError> {
        let refused =
            |error| StoreError::Connect { address: address.shown().to_owned(), source: Box::new(error) };
        let mut config = address.config().clone();
        config
            .notice_callback(|notice| tracing::debug!(message = notice.message(), "PostgreSQL has a note."));
        let client = match address.tls()? {
            Some(tls) => config.connect(tls),
            None => config.connect(NoTls),
        };
        let mut client = client.map_err(refused)?;
        client.batch_execute(SETTINGS).map_err(refused)?;
        let commit =
            client.query_one("SELECT current_setting('synchronous_commit')", &[]).map_err(refused)?;
        // What is acknowledged must be durable, whatever the database is set to.
        if matches!(commit.get(0), "off" | "local") {
            client.batch_execute("SET synchronous_commit = on").map_err(refused)?;
        }
        Ok(Self { client, statements: HashMap::new() })
    }

    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Runs statements without parameters.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.client.batch_execute(sql).map_err(failed)
    }

    pub(crate) fn exec(&mut self, sql: &'static str, parameters: &[Value<'_>]) -> Result<usize, StoreError> {
        let statement = self.prepared(sql)?;
        let changed = self.client.execute(&statement, &by_reference(parameters)).map_err(failed)?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    pub(crate) fn rows(
        &mut self,
        sql: &'static str,
        parameters: &[Value<'_>],
    ) -> Result<Vec<postgres::Row>, StoreError> {
        let statement = self.prepared(sql)?;
        self.client.query(&statement, &by_reference(parameters)).map_err(failed)
    }

    /// Of a statement that is not kept prepared.
    pub(crate) fn rows_once(
        &mut self,
        sql: &str,
        parameters: &[Value<'_>],
    ) -> Result<Vec<postgres::Row>, StoreError> {
        self.client.query(sql, &by_reference(parameters)).map_err(failed)
    }

    fn prepared(&mut self, sql: &'static str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).map_err(failed)?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

fn by_reference<'a>(parameters: &'a [Value<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters.iter().map(|value| value as _).collect()
}

fn failed(error: postgres::Error) -> StoreError {
    let is_conflict = error.code().is_some_and(|code| {
        [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED, SqlState::LOCK_NOT_AVAILABLE]
            .contains(code)
    });
    let error = Box::new(error);
    if is_conflict {
        StoreError::Conflict(error)
    } else if is_lost(&error) {
        StoreError::ConnectionLost(error)
    } else {
        StoreError::PostgresStatement(error)
    }
}

/// Whether the connection cannot be used any more: it broke, or PostgreSQL stops.
fn is_lost(error: &postgres::Error) -> bool {
    error.is_closed()
        || match error.code() {
            Some(code) => [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            ]
            .contains(code),
            // Without a code it was not PostgreSQL that spoke, but the network.
            None => error.source().is_some_and(|source| source.is::<std::io::Error>()),
        }
}

impl ToSql for Value<'_> {
    fn to_sql(&self, to: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(value) if *to == Type::INT4 => i32::try_from(*value)?.to_sql(to, out),
            Self::Integer(value) if *to == Type::INT8 => value.to_sql(to, out),
            Self::Text(text) if *to == Type::TEXT && text.contains('\0') => {
                // PostgreSQL's text has no NUL; what vehicles send may.
                text.replace('\0', "\u{fffd}").to_sql(to, out)
            }
            Self::Text(text) if *to == Type::TEXT => text.to_sql(to, out),
            Self::Integer(_) | Self::Text(_) => {
                Err(format!("{self:?} is bound where {to} is expected").into())
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// A whole number of any width.
struct Integer(i64);

impl<'a> FromSql<'a> for Integer {
    fn from_sql(from: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        if *from == Type::INT4 {
            i32::from_sql(from, raw).map(|value| Self(value.into()))
        } else {
            i64::from_sql(from, raw).map(Self)
        }
    }

    fn accepts(from: &Type) -> bool {
        [Type::INT4, Type::INT8].contains(from)
    }
}

pub(crate) fn integer(row: &postgres::Row, column: usize) -> Result<Option<i64>, StoreError> {
    let value: Option<Integer> = row.try_get(column).map_err(failed)?;
    Ok(value.map(|Integer(value)| value))
}

pub(crate) fn text(row: &postgres::Row, column: usize) -> Result<Option<String>, StoreError> {
    row.try_get(column).map_err(failed)
}

/// A thread's connection, where there is one.
pub(crate) struct Worker {
    address: Arc<PostgresAddress>,
    session: Option<RefCell<Session>>,
    /// Nobody waits for a database that is known to be away.
    is_away: bool,
}

impl Worker {
    pub(crate) fn new(address: Arc<PostgresAddress>) -> Self {
        Self { address, session: None, is_away: false }
    }

    /// Runs a job in a transaction and commits it.
    pub(crate) fn write<T, E: From<StoreError>>(
        &mut self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<(T, Committed), E> {
        let ran = self.transaction(BEGIN_WRITE, job);
        self.drop_if_lost();
        ran
    }

    /// Runs a job on one state of the database.
    pub(crate) fn read<T, E: From<StoreError>>(
        &mut self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let ran = self.transaction(BEGIN_READ, job);
        self.drop_if_lost();
        ran.map(|(value, _)| value)
    }

    fn transaction<T, E: From<StoreError>>(
        &mut self,
        begin: &'static str,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<(T, Committed), E> {
        let session = self.begun(begin)?;
        let tx = Tx::on_postgres(session);
        let result = job(&tx).and_then(|value| Ok(tx.write_rest().map(|()| value)?));
        let (has_failed, committed) = (tx.has_failed(), tx.into_committed());
        match result {
            Ok(_) if has_failed => {
                // PostgreSQL answers the COMMIT of a transaction that has failed by undoing it, without an error.
                session.borrow_mut().batch("ROLLBACK")?;
                Err(StoreError::NotCommitted.into())
            }
            Ok(value) => {
                session.borrow_mut().batch("COMMIT")?;
                Ok((value, committed))
            }
            Err(error) => {
                if session.borrow_mut().batch("ROLLBACK").is_err() {
                    self.session = None;
                }
                Err(error)
            }
        }
    }

    /// A connection on which a transaction has begun. One that broke since the last transaction is made anew.
    fn begun(&mut self, begin: &'static str) -> Result<&RefCell<Session>, StoreError> {
        let started = Instant::now();
        loop {
            let attempt = match self.session.take() {
                Some(session) => Ok(session.into_inner()),
                None => Session::connect(&self.address),
            };
            let begun = attempt.and_then(|mut session| session.batch(begin).map(|()| session));
            let error = match begun {
                Ok(session) => {
                    self.is_away = false;
                    return Ok(self.session.insert(RefCell::new(session)));
                }
                Err(error) => error,
            };
            if self.is_away || started.elapsed() >= PATIENCE {
                if !self.is_away {
                    tracing::error!(
                        store = self.address.shown(),
                        error = &error as &dyn Error,
                        "PostgreSQL cannot be reached; nothing is acknowledged until it can."
                    );
                }
                self.is_away = true;
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn drop_if_lost(&mut self) {
        if self.session.as_mut().is_some_and(|session| session.get_mut().client.is_closed()) {
            self.session = None;
        }
    }
}
