//! Operators' tokens; only digests are kept.

use farrier_protocol::{Sha256, UnixMillis};

use super::{StoreError, Tx};

pub(crate) fn all(tx: &Tx<'_>) -> Result<Vec<Sha256>, StoreError> {
    tx.rows("SELECT sha256 FROM operator_token", &[], |row| row.parsed(0, "a digest"))
}

pub(crate) fn add(tx: &Tx<'_>, digest: &Sha256, name: &str, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO operator_token (sha256, name, created_at) VALUES ($1, $2, $3)",
        &[(&digest.to_string()).into(), name.into(), now.into()],
    )?;
    Ok(())
}
