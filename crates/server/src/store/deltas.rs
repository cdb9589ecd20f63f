//! Deltas between images: which are wanted, which are made, and why others are not.

use data_encoding::HEXLOWER;
use farrier_campaign::{Delta, Plan, Release};
use farrier_protocol::{Sha256, Text, UnixMillis, VehicleId};

use super::releases::or_any;
use super::{Row, StoreError, Tx};

/// A delta that is still to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WantedDelta {
    pub(crate) from: Sha256,
    pub(crate) from_bytes: u64,
    pub(crate) image: Sha256,
    pub(crate) image_bytes: u64,
    /// Bytes of the compressed image, if they were measured before.
    pub(crate) compressed_image_bytes: Option<u64>,
}

/// How the making of a delta ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MadeDelta {
    /// Its bytes are in the artifacts' folder.
    Ready { sha256: Sha256, size_bytes: u64, signature: Vec<u8>, compressed_image_bytes: u64 },
    /// Not clearly smaller than the compressed image, and not kept.
    NotSmaller { size_bytes: u64, compressed_image_bytes: u64 },
    /// It could not be made; said in a sentence.
    Failed(String),
}

/// How far a delta is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeltaState {
    Pending,
    Ready,
    NotSmaller,
    Failed,
}

impl DeltaState {
    const ALL: [Self; 4] = [Self::Pending, Self::Ready, Self::NotSmaller, Self::Failed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::NotSmaller => "not_smaller",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for DeltaState {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or(())
    }
}

/// A delta to an image of a release, from an image for the same hardware, supplier and region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReleaseDelta {
    pub(crate) hw_part_no: Text,
    pub(crate) from_version: Text,
    pub(crate) from: Sha256,
    pub(crate) version: Text,
    pub(crate) image: Sha256,
    pub(crate) image_bytes: u64,
    pub(crate) compressed_image_bytes: Option<u64>,
    pub(crate) state: DeltaState,
    pub(crate) detail: Option<String>,
    /// Of a delta that is ready.
    pub(crate) sha256: Option<Sha256>,
    /// Of a delta that was made, kept or not.
    pub(crate) size_bytes: Option<u64>,
}

/// Wants a delta to each image of a new release, from the newest other image for the same hardware, supplier and region.
pub(crate) fn want_from_newest(
    tx: &Tx<'_>,
    release: &Release,
    bases_per_image: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for image in release.images() {
        let newest = tx.row(
            "SELECT i.sha256 FROM release_image i JOIN release r ON r.name = i.release_name \
             WHERE i.hw_part_no = $1 AND i.supplier = $4 AND i.region = $5 AND i.version <> $2 AND i.sha256 <> $3 \
             ORDER BY r.created_at DESC, r.name DESC LIMIT 1",
            &[
                image.hw_part_no.as_str().into(),
                image.version.as_str().into(),
                (&image.sha256.to_string()).into(),
                or_any(image.supplier.as_ref()).into(),
                or_any(image.region.as_ref()).into(),
            ],
            |row| row.parsed(0, "a digest"),
        )?;
        if let Some(newest) = newest {
            want(tx, &newest, &image.sha256, bases_per_image, now)?;
        }
    }
    Ok(())
}

/// Wants deltas for the full images of a plan, from what its ECUs were found to run: the next vehicles
/// that run the same will have them.
pub(crate) fn want_for_plan(
    tx: &Tx<'_>,
    plan: &Plan,
    bases_per_image: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    for package in plan.packages.iter().filter(|package| package.delta_from.is_none()) {
        let running: Vec<Sha256> = tx.rows(
            "SELECT DISTINCT b.sha256 FROM release_image b JOIN release_image t \
             ON t.hw_part_no = b.hw_part_no AND t.supplier = b.supplier AND t.region = b.region \
             WHERE b.hw_part_no = $1 AND b.version = $2 AND b.sha256 <> $3 AND t.sha256 = $3 \
             ORDER BY b.sha256 LIMIT 2",
            &[
                package.hw_part_no.as_str().into(),
                package.earlier_version.as_str().into(),
                (&package.image_sha256.to_string()).into(),
            ],
            |row| row.parsed(0, "a digest"),
        )?;
        // Of two images under one version nobody knows which the ECU has; no plan would use the delta.
        if let [from] = running.as_slice() {
            want(tx, from, &package.image_sha256, bases_per_image, now)?;
            count_want(tx, from, &package.image_sha256)?;
        }
    }
    Ok(())
}

/// Plans are made for many vehicles at once: on a shared database, who finds another one counting leaves it at that.
fn count_want(tx: &Tx<'_>, from: &Sha256, image: &Sha256) -> Result<(), StoreError> {
    let sql = tx.one_of(
        "UPDATE delta SET wanted_times = wanted_times + 1 \
         WHERE from_sha256 = $1 AND image_sha256 = $2 AND state = 'pending'",
        "UPDATE delta SET wanted_times = wanted_times + 1 WHERE (from_sha256, image_sha256) IN \
         (SELECT from_sha256, image_sha256 FROM delta \
          WHERE from_sha256 = $1 AND image_sha256 = $2 AND state = 'pending' FOR UPDATE SKIP LOCKED)",
    );
    tx.exec(sql, &[(&from.to_string()).into(), (&image.to_string()).into()])?;
    Ok(())
}

/// Wants a delta, unless it is known, or enough lead to this image already.
fn want(
    tx: &Tx<'_>,
    from: &Sha256,
    image: &Sha256,
    bases_per_image: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let added = tx.exec(
        "INSERT INTO delta (from_sha256, image_sha256, state, wanted_at) SELECT $1, $2, 'pending', $3 \
         WHERE (SELECT COUNT(*) FROM delta WHERE image_sha256 = $2) < $4 ON CONFLICT DO NOTHING",
        &[
            (&from.to_string()).into(),
            (&image.to_string()).into(),
            now.into(),
            i64::try_from(bases_per_image).unwrap_or(i64::MAX).into(),
        ],
    )?;
    if added > 0 {
        tx.delta_wanted();
    }
    Ok(())
}

/// Claims the delta that most plans would have taken, of several the one that has waited longest, for a server that will
/// make it: none that another server is making, unless
/// that one has gone.
pub(crate) fn claim_next_wanted(
    tx: &Tx<'_>,
    node_name: &str,
    now: UnixMillis,
) -> Result<Option<WantedDelta>, StoreError> {
    tx.lock("delta")?;
    let alive_since = UnixMillis(now.0.saturating_sub(super::nodes::GONE_AFTER_MS));
    let wanted = tx.row(
        "SELECT d.from_sha256, f.size_bytes, d.image_sha256, i.size_bytes, i.compressed_bytes FROM delta d \
         JOIN image f ON f.sha256 = d.from_sha256 JOIN image i ON i.sha256 = d.image_sha256 \
         WHERE d.state = 'pending' AND (d.claimed_by IS NULL OR d.claimed_by = $1 OR NOT EXISTS \
          (SELECT 1 FROM node n WHERE n.name = d.claimed_by AND n.seen_at > $2)) \
         ORDER BY d.wanted_times DESC, d.wanted_at, d.image_sha256, d.from_sha256 LIMIT 1",
        &[node_name.into(), alive_since.into()],
        |row| {
            Ok(WantedDelta {
                from: row.parsed(0, "a digest")?,
                from_bytes: row.count(1)?,
                image: row.parsed(2, "a digest")?,
                image_bytes: row.count(3)?,
                compressed_image_bytes: optional_count(row, 4)?,
            })
        },
    )?;
    if let Some(wanted) = &wanted {
        tx.exec(
            "UPDATE delta SET claimed_by = $3 WHERE from_sha256 = $1 AND image_sha256 = $2",
            &[(&wanted.from.to_string()).into(), (&wanted.image.to_string()).into(), node_name.into()],
        )?;
    }
    Ok(wanted)
}

fn optional_count(row: &Row<'_>, column: usize) -> Result<Option<u64>, StoreError> {
    Ok(row.optional_integer(column)?.map(|count| count.max(0).unsigned_abs()))
}

/// Wants again what failed.
pub(crate) fn want_failed_again(tx: &Tx<'_>) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE delta SET state = 'pending', detail = NULL, ended_at = NULL WHERE state = 'failed'",
        &[],
    )?;
    Ok(())
}

/// Stores how the making ended, and how large the compressed image is.
pub(crate) fn made(
    tx: &Tx<'_>,
    wanted: &WantedDelta,
    made: &MadeDelta,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let (state, detail, size_bytes, compressed) = match made {
        MadeDelta::Ready { size_bytes, compressed_image_bytes, .. } => {
            (DeltaState::Ready, None, Some(*size_bytes), Some(*compressed_image_bytes))
        }
        MadeDelta::NotSmaller { size_bytes, compressed_image_bytes } => {
            (DeltaState::NotSmaller, None, Some(*size_bytes), Some(*compressed_image_bytes))
        }
        MadeDelta::Failed(why) => (DeltaState::Failed, Some(why), None, None),
    };
    let (sha256, signature) = match made {
        MadeDelta::Ready { sha256, signature, .. } => {
            (Some(sha256.to_string()), Some(HEXLOWER.encode(signature)))
        }
        MadeDelta::NotSmaller { .. } | MadeDelta::Failed(_) => (None, None),
    };
    tx.exec(
        "UPDATE delta SET state = $3, detail = $4, sha256 = $5, size_bytes = $6, signature = $7, ended_at = $8 \
         WHERE from_sha256 = $1 AND image_sha256 = $2",
        &[
            (&wanted.from.to_string()).into(),
            (&wanted.image.to_string()).into(),
            state.name().into(),
            detail.into(),
            sha256.as_ref().into(),
            size_bytes.map(count).into(),
            signature.as_ref().into(),
            now.into(),
        ],
    )?;
    if let Some(compressed) = compressed {
        tx.exec(
            "UPDATE image SET compressed_bytes = $2 WHERE sha256 = $1",
            &[(&wanted.image.to_string()).into(), count(compressed).into()],
        )?;
    }
    Ok(())
}

/// All deltas to the images of a release.
pub(crate) fn of_release(tx: &Tx<'_>, name: &Text) -> Result<Vec<ReleaseDelta>, StoreError> {
    tx.rows(
        "SELECT DISTINCT t.hw_part_no, b.version, d.from_sha256, t.version, d.image_sha256, i.size_bytes, \
         i.compressed_bytes, d.state, d.detail, d.sha256, d.size_bytes \
         FROM release_image t JOIN image i ON i.sha256 = t.sha256 JOIN delta d ON d.image_sha256 = t.sha256 \
         JOIN release_image b ON b.sha256 = d.from_sha256 AND b.hw_part_no = t.hw_part_no \
         AND b.supplier = t.supplier AND b.region = t.region AND b.version <> t.version \
         WHERE t.release_name = $1 ORDER BY t.hw_part_no, b.version, d.from_sha256",
        &[name.as_str().into()],
        |row| {
            Ok(ReleaseDelta {
                hw_part_no: row.parsed(0, "a hardware part number")?,
                from_version: row.parsed(1, "a version")?,
                from: row.parsed(2, "a digest")?,
                version: row.parsed(3, "a version")?,
                image: row.parsed(4, "a digest")?,
                image_bytes: row.count(5)?,
                compressed_image_bytes: optional_count(row, 6)?,
                state: row.parsed(7, "a delta's state")?,
                detail: row.optional_text(8)?,
                sha256: row.optional_parsed(9, "a digest")?,
                size_bytes: optional_count(row, 10)?,
            })
        },
    )
}

/// The deltas that a plan of this release may choose from.
pub(crate) fn ready_of_release(tx: &Tx<'_>, name: &Text) -> Result<Vec<Delta>, StoreError> {
    let ready = |delta: ReleaseDelta| match (delta.state, delta.sha256) {
        (DeltaState::Ready, Some(sha256)) => Some(Delta {
            hw_part_no: delta.hw_part_no,
            from_version: delta.from_version,
            image_sha256: delta.image,
            sha256,
            size_bytes: delta.size_bytes?,
            compressed_image_bytes: delta.compressed_image_bytes?,
        }),
        (_, _) => None,
    };
    Ok(of_release(tx, name)?.into_iter().filter_map(ready).collect())
}

/// The same without those that this vehicle is not to be offered again.
pub(crate) fn ready_for_vehicle(
    tx: &Tx<'_>,
    release: &Text,
    vehicle_id: &VehicleId,
) -> Result<Vec<Delta>, StoreError> {
    let mut ready = ready_of_release(tx, release)?;
    if !ready.is_empty() {
        let sql = "SELECT sha256 FROM avoided_delta WHERE vehicle_id = $1";
        let avoided: Vec<Sha256> =
            tx.rows(sql, &[vehicle_id.as_str().into()], |row| row.parsed(0, "a digest"))?;
        ready.retain(|delta| !avoided.contains(&delta.sha256));
    }
    Ok(ready)
}

/// Never offers these deltas to the vehicle again.
pub(crate) fn avoid(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    deltas: &[Sha256],
    now: UnixMillis,
) -> Result<(), StoreError> {
    for sha256 in deltas {
        tx.exec(
            "INSERT INTO avoided_delta (vehicle_id, sha256, avoided_at) VALUES ($1, $2, $3) \
             ON CONFLICT (vehicle_id, sha256) DO NOTHING",
            &[vehicle_id.as_str().into(), (&sha256.to_string()).into(), now.into()],
        )?;
    }
    Ok(())
}

/// The detached signature of a delta.
pub(crate) fn signature(tx: &Tx<'_>, sha256: &Sha256) -> Result<Option<Vec<u8>>, StoreError> {
    tx.row("SELECT signature FROM delta WHERE sha256 = $1 LIMIT 1", &[(&sha256.to_string()).into()], |row| {
        let signature = row.text(0)?;
        HEXLOWER
            .decode(signature.as_bytes())
            .map_err(|_| StoreError::Damaged { expected: "a signature in hex", found: signature })
    })
}
