//! Statements and rows, as small as any SQL database can offer them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::str::FromStr;

use farrier_campaign::Standing;
use farrier_protocol::{Binding, Text, UnixMillis, VehicleId};
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::postgres::Session;
use super::statements::{Prepared, bound, bound_once};
use super::vehicles::{self, Heard};
use super::{Committed, EarlierBinding, StoreError};

/// A value that is bound to a statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<UnixMillis> for Value<'_> {
    fn from(time: UnixMillis) -> Self {
        Self::Integer(time.0)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(value) => ValueRef::Integer(*value),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// An open transaction. Statements name their parameters `$1`, `$2`, …
pub(crate) struct Tx<'c> {
    database: Database<'c>,
    committed: RefCell<Committed>,
    /// By how much the counters of campaigns have changed; written in one order at the end, so that transactions do not wait
    /// for each other in a circle.
    counted: RefCell<BTreeMap<Counter, i64>>,
    /// The vehicle that was heard: written at the end too, since many messages of one vehicle may share a commit.
    heard: RefCell<Option<(VehicleId, Heard)>>,
    /// A statement found the disk or the file at fault.
    is_fatal: Cell<bool>,
    /// A statement failed.
    has_failed: Cell<bool>,
    /// How the database finds the rows of each statement, where a test wants to know.
    #[cfg(test)]
    plans: RefCell<Option<Vec<String>>>,
}

/// What is counted of the vehicles of a wave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counted {
    /// Those with a standing; every vehicle has one.
    At(Standing),
    /// Those of which an attempt failed and a later one has not ended yet; they have a standing too.
    FailedBefore,
}

impl Counted {
    /// Its name in the store.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::At(standing) => standing.name(),
            Self::FailedBefore => "failed_before",
        }
    }
}

impl FromStr for Counted {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        if name == Self::FailedBefore.name() { Ok(Self::FailedBefore) } else { name.parse().map(Self::At) }
    }
}

/// Vehicles of one wave of a campaign of which the same is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Counter {
    pub(crate) campaign: Text,
    pub(crate) wave: u32,
    pub(crate) counted: Counted,
    /// Which of the rows that add up to it.
    pub(crate) shard: i64,
}

enum Database<'c> {
    Sqlite(&'c dyn Prepared),
    Postgres(&'c RefCell<Session>),
}

impl<'c> Tx<'c> {
    pub(super) fn on_sqlite(statements: &'c dyn Prepared) -> Self {
        Self::new(Database::Sqlite(statements))
    }

    pub(super) fn on_postgres(session: &'c RefCell<Session>) -> Self {
        Self::new(Database::Postgres(session))
    }

    fn new(database: Database<'c>) -> Self {
        Self {
            database,
            committed: RefCell::default(),
            counted: RefCell::default(),
            heard: RefCell::default(),
            is_fatal: Cell::default(),
            has_failed: Cell::default(),
            #[cfg(test)]
            plans: RefCell::default(),
        }
    }

    pub(super) fn into_committed(self) -> Committed {
        self.committed.into_inner()
    }

    /// Whether a statement found that the file cannot be relied on.
    pub(super) fn is_fatal(&self) -> bool {
        self.is_fatal.get()
    }

    /// Whether a statement failed: PostgreSQL then keeps nothing of the transaction, whatever the job makes of it.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.get()
    }

    /// Once this is durable, the vehicle's connection looks for commands.
    pub(crate) fn wake(&self, binding: &Binding) {
        self.committed.borrow_mut().wake.insert(binding.clone());
    }

    /// Once this is durable, the runner looks when something is due.
    pub(crate) fn due_changed(&self) {
        self.committed.borrow_mut().due_changed = true;
    }

    /// Once this is durable, nobody goes by what vehicles could fetch before.
    pub(crate) fn grants_taken_away(&self) {
        self.committed.borrow_mut().grants_taken_away = true;
    }

    /// Once this is durable, connections of this earlier binding end.
    pub(crate) fn rebound(&self, earlier: EarlierBinding) {
        self.committed.borrow_mut().rebound.push(earlier);
    }

    /// Once this is durable, the maker of deltas looks what is wanted.
    pub(crate) fn delta_wanted(&self) {
        self.committed.borrow_mut().delta_wanted = true;
    }

    /// Once this is durable, those who follow changes are told.
    pub(super) fn told(&self) {
        self.committed.borrow_mut().told = true;
    }

    /// Counts so many vehicles more, or fewer.
    pub(super) fn count(&self, counter: Counter, vehicles: i64) {
        self.gate_changed(&counter.campaign);
        let mut counted = self.counted.borrow_mut();
        let number = counted.entry(counter).or_default();
        *number = number.saturating_add(vehicles);
    }

    /// Once this is durable, the campaign's gate is looked at.
    pub(crate) fn gate_changed(&self, campaign: &Text) {
        self.committed.borrow_mut().gates.insert(campaign.clone());
    }

    /// What this transaction has counted in a campaign and not yet written.
    pub(super) fn counted_in(&self, campaign: &Text) -> Vec<(Counter, i64)> {
        let counted = self.counted.borrow();
        let own = counted.iter().filter(|(counter, _)| counter.campaign == *campaign);
        own.map(|(counter, vehicles)| (counter.clone(), *vehicles)).collect()
    }

    /// Notes that a vehicle was heard.
    pub(super) fn heard(&self, vehicle_id: &VehicleId, heard: Heard) -> Result<(), StoreError> {
        match self.heard.replace(Some((vehicle_id.clone(), heard))) {
            Some((other, heard)) if other != *vehicle_id => vehicles::write_heard(self, &other, heard),
            Some(_) | None => Ok(()),
        }
    }

    /// The vehicle that was heard, for whoever writes that.
    pub(super) fn take_heard(&self) -> Option<(VehicleId, Heard)> {
        self.heard.take()
    }

    /// Writes all that was left for the end: the last thing that a job does.
    pub(super) fn write_rest(&self) -> Result<(), StoreError> {
        self.write_counters()?;
        self.take_heard()
            .map_or(Ok(()), |(vehicle_id, heard)| vehicles::write_heard(self, &vehicle_id, heard))
    }

    /// Writes what was counted.
    pub(super) fn write_counters(&self) -> Result<(), StoreError> {
        for (counter, vehicles) in self.counted.take() {
            if vehicles != 0 {
                super::campaigns::add_to_counter(self, &counter, vehicles)?;
            }
        }
        Ok(())
    }

    /// Whether other servers may work on the same store at the same time.
    pub(crate) fn is_shared(&self) -> bool {
        match self.database {
            Database::Sqlite(_) => false,
            Database::Postgres(_) => true,
        }
    }

    /// The one of two statements that is written for this database: for the few words that only one of them knows.
    pub(super) fn one_of(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        if self.is_shared() { postgres } else { sqlite }
    }

    /// Waits until no other transaction holds the lock of this name, and holds it until this one ends.
    /// For what has no row to lock, such as a table of which only one may write the next row. SQLite has one writer, so
    /// there it is held already.
    pub(crate) fn lock(&self, name: &str) -> Result<(), StoreError> {
        if self.is_shared() {
            let sql = "SELECT 1 FROM pg_advisory_xact_lock(hashtextextended($1, 0))";
            self.rows(sql, &[name.into()], |_| Ok(()))?;
        }
        Ok(())
    }

    /// The same beside others that take the lock in this way; whoever takes it alone and they wait for each other.
    pub(crate) fn lock_with_others(&self, name: &str) -> Result<(), StoreError> {
        if self.is_shared() {
            let sql = "SELECT 1 FROM pg_advisory_xact_lock_shared(hashtextextended($1, 0))";
            self.rows(sql, &[name.into()], |_| Ok(()))?;
        }
        Ok(())
    }

    /// Runs a statement; gives the number of rows that it changed.
    pub(crate) fn exec(&self, sql: &'static str, parameters: &[Value<'_>]) -> Result<usize, StoreError> {
        self.noted(match &self.database {
            Database::Sqlite(statements) => {
                bound(*statements, sql, parameters, |statement| Ok(statement.raw_execute()?))
            }
            Database::Postgres(session) => session.borrow_mut().exec(sql, parameters),
        })
    }

    /// Reads all rows.
    pub(crate) fn rows<R>(
        &self,
        sql: &'static str,
        parameters: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<R, StoreError>,
    ) -> Result<Vec<R>, StoreError> {
        #[cfg(test)]
        self.keep_plan(sql, parameters);
        match &self.database {
            Database::Sqlite(statements) => {
                self.noted(bound(*statements, sql, parameters, |statement| all_rows(statement, &read)))
            }
            Database::Postgres(session) => {
                let rows = self.noted(session.borrow_mut().rows(sql, parameters))?;
                rows.iter().map(|row| read(&Row::Postgres(row))).collect()
            }
        }
    }

    /// Reads all rows of a statement that is made at run time: it does not stay prepared.
    pub(super) fn rows_of<R>(
        &self,
        sql: &str,
        parameters: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<R, StoreError>,
    ) -> Result<Vec<R>, StoreError> {
        match &self.database {
            Database::Sqlite(statements) => {
                let connection = statements.connection();
                self.noted(bound_once(connection, sql, parameters, |statement| all_rows(statement, &read)))
            }
            Database::Postgres(session) => {
                let rows = self.noted(session.borrow_mut().rows_once(sql, parameters))?;
                rows.iter().map(|row| read(&Row::Postgres(row))).collect()
            }
        }
    }

    /// From now on keeps the plan of each statement that reads.
    #[cfg(test)]
    pub(crate) fn explain(&self) {
        *self.plans.borrow_mut() = Some(Vec::new());
    }

    /// The plans that were kept, each after its statement.
    #[cfg(test)]
    pub(crate) fn take_plans(&self) -> Vec<String> {
        self.plans.borrow_mut().take().unwrap_or_default()
    }

    #[cfg(test)]
    fn keep_plan(&self, sql: &'static str, parameters: &[Value<'_>]) {
        let Some(mut plans) = self.plans.borrow_mut().take() else { return };
        let (explain, column) = if self.is_shared() { ("EXPLAIN", 0) } else { ("EXPLAIN QUERY PLAN", 3) };
        let lines = self.rows_of(&format!("{explain} {sql}"), parameters, |row| row.text(column)).unwrap();
        plans.push(format!("{sql}\n{}\n", lines.join("\n")));
        *self.plans.borrow_mut() = Some(plans);
    }

    /// Reads the first row.
    pub(crate) fn row<R>(
        &self,
        sql: &'static str,
        parameters: &[Value<'_>],
        read: impl Fn(&Row<'_>) -> Result<R, StoreError>,
    ) -> Result<Option<R>, StoreError> {
        #[cfg(test)]
        self.keep_plan(sql, parameters);
        match &self.database {
            Database::Sqlite(statements) => self.noted(bound(*statements, sql, parameters, |statement| {
                let mut rows = statement.raw_query();
                rows.next()?.map(|row| read(&Row::Sqlite(row))).transpose()
            })),
            Database::Postgres(session) => {
                let rows = self.noted(session.borrow_mut().rows(sql, parameters))?;
                rows.first().map(|row| read(&Row::Postgres(row))).transpose()
            }
        }
    }

    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result {
            self.has_failed.set(true);
            self.is_fatal.set(self.is_fatal.get() || error.is_fatal());
        }
        result
    }
}

fn all_rows<R>(
    statement: &mut rusqlite::Statement<'_>,
    read: impl Fn(&Row<'_>) -> Result<R, StoreError>,
) -> Result<Vec<R>, StoreError> {
    let mut rows = statement.raw_query();
    let mut read_rows = Vec::new();
    while let Some(row) = rows.next()? {
        read_rows.push(read(&Row::Sqlite(row))?);
    }
    Ok(read_rows)
}

/// A row that was found; columns count from 0.
pub(crate) enum Row<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r postgres::Row),
}

impl Row<'_> {
    pub(crate) fn integer(&self, column: usize) -> Result<i64, StoreError> {
        self.optional_integer(column)?.ok_or_else(|| no_value("a number"))
    }

    /// A number that is never negative, as all counts and sizes are written.
    pub(crate) fn count(&self, column: usize) -> Result<u64, StoreError> {
        Ok(self.integer(column)?.max(0).unsigned_abs())
    }

    pub(crate) fn time(&self, column: usize) -> Result<UnixMillis, StoreError> {
        Ok(UnixMillis(self.integer(column)?))
    }

    pub(crate) fn optional_time(&self, column: usize) -> Result<Option<UnixMillis>, StoreError> {
        Ok(self.optional_integer(column)?.map(UnixMillis))
    }

    pub(crate) fn optional_integer(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => super::postgres::integer(row, column),
        }
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, StoreError> {
        self.optional_text(column)?.ok_or_else(|| no_value("a text"))
    }

    pub(crate) fn optional_text(&self, column: usize) -> Result<Option<String>, StoreError> {
        match self {
            Self::Sqlite(row) => Ok(row.get(column)?),
            Self::Postgres(row) => super::postgres::text(row, column),
        }
    }

    /// What is made of a text, which is not copied for it where the database allows.
    fn with_text<T>(
        &self,
        column: usize,
        make: impl FnOnce(&str) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        if let Self::Sqlite(row) = self
            && let Ok(text) = row.get_ref(column)?.as_str()
        {
            return make(text).map(Some);
        }
        self.optional_text(column)?.as_deref().map(make).transpose()
    }

    /// A text that was checked before it was written.
    pub(crate) fn parsed<T: FromStr>(&self, column: usize, expected: &'static str) -> Result<T, StoreError> {
        self.optional_parsed(column, expected)?.ok_or_else(|| no_value("a text"))
    }

    pub(crate) fn optional_parsed<T: FromStr>(
        &self,
        column: usize,
        expected: &'static str,
    ) -> Result<Option<T>, StoreError> {
        self.with_text(column, |text| text.parse().map_err(|_| damaged(expected, text)))
    }

    /// A value that was written as JSON.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(
        &self,
        column: usize,
        expected: &'static str,
    ) -> Result<T, StoreError> {
        self.optional_json(column, expected)?.ok_or_else(|| no_value(expected))
    }

    pub(crate) fn optional_json<T: serde::de::DeserializeOwned>(
        &self,
        column: usize,
        expected: &'static str,
    ) -> Result<Option<T>, StoreError> {
        self.with_text(column, |text| serde_json::from_str(text).map_err(|_| damaged(expected, text)))
    }
}

fn no_value(expected: &'static str) -> StoreError {
    StoreError::Damaged { expected, found: "no value".to_owned() }
}

fn damaged(expected: &'static str, found: &str) -> StoreError {
    StoreError::Damaged { expected, found: found.to_owned() }
}

/// The JSON in which a value is stored.
pub(crate) fn stored_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Damaged {
        expected: "a value that JSON can hold",
        found: error.to_string(),
    })
}
