//! Images that come in parts: how much of each is durable.

use farrier_protocol::{Sha256, UnixMillis};

use super::{Row, StoreError, Tx};

/// An image of which the beginning is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) sha256: Sha256,
    pub(crate) size_bytes: u64,
    /// So many octets are durable and acknowledged.
    pub(crate) offset_bytes: u64,
    /// Detached, base64 of ASN.1 DER, as it was given.
    pub(crate) signature: Option<String>,
    /// The name of the token that began it, or `user:` and that of the user.
    pub(crate) begun_by: String,
    pub(crate) begun_at: UnixMillis,
    /// After this it is removed, unless more comes.
    pub(crate) expires_at: UnixMillis,
}

impl Upload {
    /// Who began it, as the audit log names them.
    pub(crate) fn begun_by_actor(&self) -> String {
        if self.begun_by.contains(':') { self.begun_by.clone() } else { format!("token:{}", self.begun_by) }
    }
}

macro_rules! select_upload {
    ($rest:literal) => {
        concat!(
            "SELECT sha256, size_bytes, offset_bytes, signature, begun_by, begun_at, expires_at FROM upload ",
            $rest
        )
    };
}

fn read(row: &Row<'_>) -> Result<Upload, StoreError> {
    Ok(Upload {
        sha256: row.parsed(0, "a digest")?,
        size_bytes: row.count(1)?,
        offset_bytes: row.count(2)?,
        signature: row.optional_text(3)?,
        begun_by: row.text(4)?,
        begun_at: row.time(5)?,
        expires_at: row.time(6)?,
    })
}

fn octets(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn by_digest(tx: &Tx<'_>, sha256: &Sha256) -> Result<Option<Upload>, StoreError> {
    tx.row(select_upload!("WHERE sha256 = $1"), &[(&sha256.to_string()).into()], read)
}

/// The uploads after a digest, by digest.
pub(crate) fn page(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<Upload>, StoreError> {
    tx.rows(
        select_upload!("WHERE sha256 > $1 ORDER BY sha256 LIMIT $2"),
        &[after.into(), i64::from(limit).into()],
        read,
    )
}

/// Those that have expired, a hundred at most.
pub(crate) fn expired(tx: &Tx<'_>, now: UnixMillis) -> Result<Vec<Upload>, StoreError> {
    tx.rows(select_upload!("WHERE expires_at <= $1 ORDER BY expires_at LIMIT 100"), &[now.into()], read)
}

/// How many a token has begun that are not over.
pub(crate) fn count_of(tx: &Tx<'_>, token: &str) -> Result<u64, StoreError> {
    let count =
        tx.row("SELECT COUNT(*) FROM upload WHERE begun_by = $1", &[token.into()], |row| row.count(0))?;
    Ok(count.unwrap_or(0))
}

/// How many octets are still to come, of all uploads together.
pub(crate) fn bytes_to_come(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let sum = tx.row(
        "SELECT CAST(COALESCE(SUM(size_bytes - offset_bytes), 0) AS BIGINT) FROM upload",
        &[],
        |row| row.count(0),
    )?;
    Ok(sum.unwrap_or(0))
}

/// Begins an upload of a digest of which there is none.
pub(crate) fn begin(tx: &Tx<'_>, upload: &Upload) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO upload (sha256, size_bytes, offset_bytes, signature, begun_by, begun_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            (&upload.sha256.to_string()).into(),
            octets(upload.size_bytes).into(),
            octets(upload.offset_bytes).into(),
            upload.signature.as_ref().into(),
            (&upload.begun_by).into(),
            upload.begun_at.into(),
            upload.expires_at.into(),
        ],
    )?;
    Ok(())
}

/// Takes the signature that was given last.
pub(crate) fn set_signature(tx: &Tx<'_>, sha256: &Sha256, signature: &str) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE upload SET signature = $2 WHERE sha256 = $1",
        &[(&sha256.to_string()).into(), signature.into()],
    )?;
    Ok(())
}

/// Acknowledges what is durable; gives whether there is such an upload.
pub(crate) fn acknowledge(
    tx: &Tx<'_>,
    sha256: &Sha256,
    offset_bytes: u64,
    expires_at: UnixMillis,
) -> Result<bool, StoreError> {
    let changed = tx.exec(
        "UPDATE upload SET offset_bytes = $2, expires_at = $3 WHERE sha256 = $1",
        &[(&sha256.to_string()).into(), octets(offset_bytes).into(), expires_at.into()],
    )?;
    Ok(changed == 1)
}

/// Ends an upload, whether or not it is whole.
pub(crate) fn end(tx: &Tx<'_>, sha256: &Sha256) -> Result<(), StoreError> {
    tx.exec("DELETE FROM upload WHERE sha256 = $1", &[(&sha256.to_string()).into()])?;
    Ok(())
}
