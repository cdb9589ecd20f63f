//! Fleet groups: saved selections.

use farrier_campaign::Selection;
use farrier_protocol::{LongText, Text, UnixMillis};

use super::{Row, StoreError, Tx};

/// A selection that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: Text,
    pub(crate) selection: Selection,
    /// The operators' words about it.
    pub(crate) note: Option<LongText>,
    pub(crate) created_at: UnixMillis,
    pub(crate) updated_at: UnixMillis,
}

impl Group {
    /// What the audit log takes the digest of.
    pub(crate) fn audited(&self) -> serde_json::Value {
        serde_json::json!({"query": self.selection, "note": self.note})
    }
}

macro_rules! select_group {
    ($rest:literal) => {
        concat!("SELECT name, query, note, created_at, updated_at FROM fleet_group ", $rest)
    };
}

fn read(row: &Row<'_>) -> Result<Group, StoreError> {
    Ok(Group {
        name: row.parsed(0, "a name")?,
        selection: row.parsed(1, "a query")?,
        note: row.optional_parsed(2, "a note")?,
        created_at: row.time(3)?,
        updated_at: row.time(4)?,
    })
}

pub(crate) fn by_name(tx: &Tx<'_>, name: &Text) -> Result<Option<Group>, StoreError> {
    tx.row(select_group!("WHERE name = $1"), &[name.as_str().into()], read)
}

/// The groups after a name, by name.
pub(crate) fn page(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<Group>, StoreError> {
    tx.rows(
        select_group!("WHERE name > $1 ORDER BY name LIMIT $2"),
        &[after.into(), i64::from(limit).into()],
        read,
    )
}

/// Makes a group, or puts it in the place of the one of this name.
pub(crate) fn put(tx: &Tx<'_>, group: &Group) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO fleet_group (name, query, note, created_at, updated_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (name) DO UPDATE SET query = $2, note = $3, updated_at = $5",
        &[
            group.name.as_str().into(),
            (&group.selection.to_string()).into(),
            group.note.as_ref().map(LongText::as_str).into(),
            group.created_at.into(),
            group.updated_at.into(),
        ],
    )?;
    Ok(())
}

pub(crate) fn delete(tx: &Tx<'_>, name: &Text) -> Result<(), StoreError> {
    tx.exec("DELETE FROM fleet_group WHERE name = $1", &[name.as_str().into()])?;
    Ok(())
}
