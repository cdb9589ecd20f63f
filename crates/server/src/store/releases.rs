//! Images and the releases that they belong to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use farrier_campaign::{Image, Release};
use farrier_protocol::{Sha256, Text, UnixMillis};

use super::{Row, StoreError, Tx, locked};

/// An image whose bytes are in the artifacts' folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredImage {
    pub(crate) sha256: Sha256,
    pub(crate) size_bytes: u64,
    /// Detached, ASN.1 DER.
    pub(crate) signature: Vec<u8>,
}

pub(crate) fn image(tx: &Tx<'_>, sha256: &Sha256) -> Result<Option<StoredImage>, StoreError> {
    tx.row(
        "SELECT sha256, size_bytes, signature FROM image WHERE sha256 = $1",
        &[(&sha256.to_string()).into()],
        |row| {
            let signature = row.text(2)?;
            Ok(StoredImage {
                sha256: row.parsed(0, "a digest")?,
                size_bytes: row.count(1)?,
                signature: HEXLOWER
                    .decode(signature.as_bytes())
                    .map_err(|_| StoreError::Damaged { expected: "a signature in hex", found: signature })?,
            })
        },
    )
}

/// Remembers an image, or gives one that is there its newest signature.
pub(crate) fn put_image(tx: &Tx<'_>, image: &StoredImage, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO image (sha256, size_bytes, signature, stored_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (sha256) DO UPDATE SET signature = excluded.signature",
        &[
            (&image.sha256.to_string()).into(),
            i64::try_from(image.size_bytes).unwrap_or(i64::MAX).into(),
            (&HEXLOWER.encode(&image.signature)).into(),
            now.into(),
        ],
    )?;
    Ok(())
}

/// A release with its name and age.
#[derive(Debug, Clone)]
pub(crate) struct NamedRelease {
    pub(crate) name: Text,
    pub(crate) created_at: UnixMillis,
    pub(crate) release: Release,
}

/// Stores a release under a name that is free, of images that are stored.
pub(crate) fn create(tx: &Tx<'_>, name: &Text, release: &Release, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec("INSERT INTO release (name, created_at) VALUES ($1, $2)", &[name.as_str().into(), now.into()])?;
    for image in release.images() {
        tx.exec(
            "INSERT INTO release_image (release_name, hw_part_no, version, sha256) VALUES ($1, $2, $3, $4)",
            &[
                name.as_str().into(),
                image.hw_part_no.as_str().into(),
                image.version.as_str().into(),
                (&image.sha256.to_string()).into(),
            ],
        )?;
    }
    Ok(())
}

pub(crate) fn by_name(tx: &Tx<'_>, name: &Text) -> Result<Option<NamedRelease>, StoreError> {
    let sql = "SELECT created_at FROM release WHERE name = $1";
    let Some(created_at) = tx.row(sql, &[name.as_str().into()], |row| row.time(0))? else {
        return Ok(None);
    };
    let images = tx.rows(
        "SELECT r.hw_part_no, r.version, r.sha256, i.size_bytes FROM release_image r \
         JOIN image i ON i.sha256 = r.sha256 WHERE r.release_name = $1 ORDER BY r.hw_part_no",
        &[name.as_str().into()],
        read_image,
    )?;
    let release = Release::new(images)
        .map_err(|error| StoreError::Damaged { expected: "a release", found: error.to_string() })?;
    Ok(Some(NamedRelease { name: name.clone(), created_at, release }))
}

/// Releases that were read once: none changes, and each step of each vehicle update asks for one.
#[derive(Default)]
pub(crate) struct KnownReleases(Mutex<BTreeMap<Text, Arc<NamedRelease>>>);

impl KnownReleases {
    /// More are forgotten all at once.
    const MOST: usize = 64;

    pub(crate) fn get(&self, tx: &Tx<'_>, name: &Text) -> Result<Option<Arc<NamedRelease>>, StoreError> {
        if let Some(known) = locked(&self.0).get(name) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(release) = by_name(tx, name)?.map(Arc::new) else { return Ok(None) };
        let mut known = locked(&self.0);
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert(name.clone(), Arc::clone(&release));
        Ok(Some(release))
    }
}

fn read_image(row: &Row<'_>) -> Result<Image, StoreError> {
    Ok(Image::new(
        row.parsed(0, "a hardware part number")?,
        row.parsed(1, "a version")?,
        row.parsed(2, "a digest")?,
        row.count(3)?,
    ))
}

/// The names of releases after a name.
pub(crate) fn names(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<Text>, StoreError> {
    tx.rows(
        "SELECT name FROM release WHERE name > $1 ORDER BY name LIMIT $2",
        &[after.into(), i64::from(limit).into()],
        |row| row.parsed(0, "a release name"),
    )
}
