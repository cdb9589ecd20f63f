//! Images and the releases that they belong to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use farrier_campaign::{Image, Release, version_key};
use farrier_protocol::{Sha256, Text, UnixMillis};

use super::tx::stored_json;
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

/// Images that no release has, newest first, each with its size and when it was stored.
pub(crate) fn images_without_release(
    tx: &Tx<'_>,
    limit: u32,
) -> Result<Vec<(Sha256, u64, UnixMillis)>, StoreError> {
    tx.rows(
        "SELECT i.sha256, i.size_bytes, i.stored_at FROM image i \
         WHERE NOT EXISTS (SELECT 1 FROM release_image r WHERE r.sha256 = i.sha256) \
         ORDER BY i.stored_at DESC, i.sha256 LIMIT $1",
        &[i64::from(limit).into()],
        |row| Ok((row.parsed(0, "a digest")?, row.count(1)?, row.time(2)?)),
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
    tx.exec(
        "INSERT INTO release (name, created_at, rules) VALUES ($1, $2, $3)",
        &[name.as_str().into(), now.into(), (&stored_json(release.rules())?).into()],
    )?;
    for image in release.images() {
        tx.exec(
            "INSERT INTO release_image (release_name, hw_part_no, supplier, region, version, sha256, rxswins) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                name.as_str().into(),
                image.hw_part_no.as_str().into(),
                or_any(image.supplier.as_ref()).into(),
                or_any(image.region.as_ref()).into(),
                image.version.as_str().into(),
                (&image.sha256.to_string()).into(),
                (&stored_json(&image.rxswins)?).into(),
            ],
        )?;
    }
    Ok(())
}

/// A supplier or region as it is stored.
pub(super) fn or_any(text: Option<&Text>) -> &str {
    text.map_or("", Text::as_str)
}

pub(crate) fn by_name(tx: &Tx<'_>, name: &Text) -> Result<Option<NamedRelease>, StoreError> {
    let sql = "SELECT created_at, rules FROM release WHERE name = $1";
    let read = |row: &Row<'_>| Ok((row.time(0)?, row.json(1, "the rules of a release")?));
    let Some((created_at, rules)) = tx.row(sql, &[name.as_str().into()], read)? else {
        return Ok(None);
    };
    let images = tx.rows(
        "SELECT r.hw_part_no, r.supplier, r.region, r.version, r.sha256, i.size_bytes, r.rxswins \
         FROM release_image r JOIN image i ON i.sha256 = r.sha256 \
         WHERE r.release_name = $1 ORDER BY r.hw_part_no, r.supplier, r.region",
        &[name.as_str().into()],
        read_image,
    )?;
    let release = Release::with_rules(images, rules)
        .map_err(|error| StoreError::Damaged { expected: "a release", found: error.to_string() })?;
    Ok(Some(NamedRelease { name: name.clone(), created_at, release }))
}

/// How the removal of a release ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Removed {
    Gone,
    /// This campaign brings it.
    InUse(Text),
}

/// Removes a release that no campaign uses. Its images stay, and the deltas between them.
pub(crate) fn remove(tx: &Tx<'_>, name: &Text) -> Result<Removed, StoreError> {
    // No campaign takes it up from here on.
    let lock = tx
        .one_of("SELECT 1 FROM release WHERE name = $1", "SELECT 1 FROM release WHERE name = $1 FOR UPDATE");
    tx.row(lock, &[name.as_str().into()], |_| Ok(()))?;
    let sql = "SELECT name FROM campaign WHERE release_name = $1 ORDER BY name LIMIT 1";
    if let Some(campaign) = tx.row(sql, &[name.as_str().into()], |row| row.parsed(0, "a campaign name"))? {
        return Ok(Removed::InUse(campaign));
    }
    tx.exec("DELETE FROM release_image WHERE release_name = $1", &[name.as_str().into()])?;
    tx.exec("DELETE FROM release WHERE name = $1", &[name.as_str().into()])?;
    Ok(Removed::Gone)
}

/// Releases of campaigns that were read once: each step of each vehicle update asks for one. None changes, and none that
/// a campaign uses is removed.
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
    let unless_any = |column, expected| match row.text(column)?.is_empty() {
        true => Ok::<Option<Text>, StoreError>(None),
        false => row.optional_parsed(column, expected),
    };
    Ok(Image {
        supplier: unless_any(1, "a supplier")?,
        region: unless_any(2, "a region")?,
        rxswins: row.json(6, "RXSWINs")?,
        ..Image::new(
            row.parsed(0, "a hardware part number")?,
            row.parsed(3, "a version")?,
            row.parsed(4, "a digest")?,
            row.count(5)?,
        )
    })
}

/// Releases that change an RXSWIN, by name.
pub(crate) fn with_rxswin(tx: &Tx<'_>, rxswin: &Text, limit: u32) -> Result<Vec<Text>, StoreError> {
    let sql = tx.one_of(
        "SELECT DISTINCT release_name FROM release_image WHERE instr(rxswins, $1) > 0 ORDER BY release_name LIMIT $2",
        "SELECT DISTINCT release_name FROM release_image WHERE strpos(rxswins, $1) > 0 ORDER BY release_name LIMIT $2",
    );
    // As it stands in the JSON of the list, with its quotes.
    let quoted = stored_json(rxswin)?;
    tx.rows(sql, &[(&quoted).into(), i64::from(limit).into()], |row| row.parsed(0, "a release name"))
}

/// The newest releases, by name.
pub(crate) fn newest_names(tx: &Tx<'_>, limit: u32) -> Result<Vec<Text>, StoreError> {
    Ok(before(tx, &(UnixMillis(i64::MAX), String::new()), limit)?.into_iter().map(|(_, name)| name).collect())
}

/// The releases before a place in the list, newest first.
pub(crate) fn before(
    tx: &Tx<'_>,
    place: &(UnixMillis, String),
    limit: u32,
) -> Result<Vec<(UnixMillis, Text)>, StoreError> {
    tx.rows(
        "SELECT created_at, name FROM release WHERE created_at < $1 OR (created_at = $1 AND name < $2) \
         ORDER BY created_at DESC, name DESC LIMIT $3",
        &[place.0.into(), (&place.1).into(), i64::from(limit).into()],
        |row| Ok((row.time(0)?, row.parsed(1, "a release name")?)),
    )
}

/// How many vehicles have an ECU of this hardware that runs this version, counted up to a limit. Versions of the same rank are
/// the same, however they are written.
pub(crate) fn vehicles_that_run(
    tx: &Tx<'_>,
    hw_part_no: &Text,
    version: &Text,
    limit: u32,
) -> Result<u64, StoreError> {
    let (hw_part_no, limit) = (hw_part_no.as_str().into(), i64::from(limit).into());
    let count = |row: &Row<'_>| row.count(0);
    let counted = match version_key(version.as_str()) {
        Some(key) => tx.row(
            "SELECT COUNT(*) FROM (SELECT DISTINCT vehicle_id FROM vehicle_ecu \
             WHERE hw_part_no = $1 AND sw_version_key = $2 LIMIT $3) AS found",
            &[hw_part_no, (&key).into(), limit],
            count,
        )?,
        None => tx.row(
            "SELECT COUNT(*) FROM (SELECT DISTINCT vehicle_id FROM vehicle_ecu \
             WHERE hw_part_no = $1 AND sw_version_key IS NULL AND sw_version = $2 LIMIT $3) AS found",
            &[hw_part_no, version.as_str().into(), limit],
            count,
        )?,
    };
    Ok(counted.unwrap_or(0))
}

/// The names of releases after a name.
pub(crate) fn names(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<Text>, StoreError> {
    tx.rows(
        "SELECT name FROM release WHERE name > $1 ORDER BY name LIMIT $2",
        &[after.into(), i64::from(limit).into()],
        |row| row.parsed(0, "a release name"),
    )
}
