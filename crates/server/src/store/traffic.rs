//! Bytes that the vehicles of a campaign have fetched, and what whole images would have taken: counted when a download is noted.

use farrier_protocol::{Text, VehicleId};

use super::{StoreError, Tx, updates};

/// What went to vehicles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) sent_bytes: u64,
    /// What would have, had there been no deltas.
    pub(crate) whole_bytes: u64,
}

impl Traffic {
    /// What a download brings on its way from one byte to another, of a package of this size for an image of that size. All
    /// parts of a package make up the whole image, however it is cut.
    pub(crate) fn between(from: u64, to: u64, (package, image): (u64, u64)) -> Self {
        let whole_at = |byte: u64| {
            let whole = u128::from(byte) * u128::from(image) / u128::from(package.max(1));
            u64::try_from(whole).unwrap_or(u64::MAX)
        };
        Self { sent_bytes: to.saturating_sub(from), whole_bytes: whole_at(to).saturating_sub(whole_at(from)) }
    }

    /// What deltas have saved.
    pub(crate) fn saved_bytes(self) -> u64 {
        self.whole_bytes.saturating_sub(self.sent_bytes)
    }
}

/// Counts what went to a vehicle for an update.
pub(super) fn add(
    tx: &Tx<'_>,
    update_id: &str,
    vehicle_id: &VehicleId,
    more: Traffic,
) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO campaign_traffic (campaign_name, shard, sent_bytes, whole_bytes) \
         SELECT campaign_name, CAST($2 AS BIGINT), CAST($3 AS BIGINT), CAST($4 AS BIGINT) \
         FROM vehicle_update WHERE id = $1 \
         ON CONFLICT (campaign_name, shard) DO UPDATE SET \
         sent_bytes = campaign_traffic.sent_bytes + excluded.sent_bytes, \
         whole_bytes = campaign_traffic.whole_bytes + excluded.whole_bytes",
        &[
            update_id.into(),
            updates::shard(tx, vehicle_id).into(),
            i64::try_from(more.sent_bytes).unwrap_or(i64::MAX).into(),
            i64::try_from(more.whole_bytes).unwrap_or(i64::MAX).into(),
        ],
    )?;
    Ok(())
}

/// What went to the vehicles of a campaign so far.
pub(crate) fn of_campaign(tx: &Tx<'_>, campaign: &Text) -> Result<Traffic, StoreError> {
    let found = tx.row(
        "SELECT CAST(COALESCE(SUM(sent_bytes), 0) AS BIGINT), CAST(COALESCE(SUM(whole_bytes), 0) AS BIGINT) \
         FROM campaign_traffic WHERE campaign_name = $1",
        &[campaign.as_str().into()],
        |row| Ok(Traffic { sent_bytes: row.count(0)?, whole_bytes: row.count(1)? }),
    )?;
    Ok(found.unwrap_or_default())
}

/// What a campaign counts too little, in a sentence: at least what its vehicles have fetched of what they may fetch now.
pub(super) fn wrong(tx: &Tx<'_>, campaign: &Text) -> Result<Option<String>, StoreError> {
    let fetched = tx.row(
        "SELECT CAST(COALESCE(SUM(g.served_bytes), 0) AS BIGINT) FROM package_grant g \
         JOIN vehicle_update u ON u.id = g.vehicle_update_id WHERE u.campaign_name = $1",
        &[campaign.as_str().into()],
        |row| row.count(0),
    )?;
    let (fetched, counted) = (fetched.unwrap_or(0), of_campaign(tx, campaign)?.sent_bytes);
    Ok((counted < fetched)
        .then(|| format!("campaign {campaign}: {counted} bytes counted, {fetched} fetched by its vehicles")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_parts_of_a_package_make_up_the_whole_image(
            cuts in prop::collection::vec(0_u64..=1_000_003, 0..20),
            image in 0_u64..4_000_000_000_000,
        ) {
            let package = 1_000_003;
            let mut cuts = cuts;
            cuts.extend([0, package]);
            cuts.sort_unstable();
            let parts = cuts.windows(2).map(|cut| Traffic::between(cut[0], cut[1], (package, image)));
            let all = parts.fold(Traffic::default(), |sum, part| Traffic {
                sent_bytes: sum.sent_bytes + part.sent_bytes,
                whole_bytes: sum.whole_bytes + part.whole_bytes,
            });
            prop_assert_eq!(all, Traffic { sent_bytes: package, whole_bytes: image });
        }
    }
}
