//! What people have said of campaigns and their waves: approved or rejected, each word with the plan that it is about.

use farrier_campaign::ApprovalWord;
use farrier_protocol::{Sha256, Text, UnixMillis, VehicleId};
use serde_json::json;

use super::campaigns::Campaign;
use super::{StoreError, Tx};

/// SHA-256 of all that decides what a campaign will do: whoever approves it has looked at exactly this.
pub(crate) fn plan_sha256(tx: &Tx<'_>, campaign: &Campaign) -> Result<Sha256, StoreError> {
    let named: Vec<VehicleId> = tx.rows(
        "SELECT vehicle_id FROM campaign_vehicle WHERE campaign_name = $1 ORDER BY vehicle_id",
        &[campaign.name.as_str().into()],
        |row| row.parsed(0, "a vehicle id"),
    )?;
    let plan = json!({
        "name": campaign.name, "release": campaign.release, "every_vehicle": campaign.every_vehicle,
        "vehicles": named, "query": campaign.intake.query, "follows": campaign.intake.follows,
        "excludes": campaign.intake.excludes, "priority": campaign.intake.priority,
        "update_deadline_s": campaign.update_deadline_s, "rollout": campaign.rollout,
    });
    Ok(Sha256::of(plan.to_string().as_bytes()))
}

/// All that was said of a campaign, oldest first.
pub(crate) fn words(tx: &Tx<'_>, campaign: &Text) -> Result<Vec<ApprovalWord>, StoreError> {
    tx.rows(
        "SELECT wave, approved, said_by, at, remark, plan_sha256 FROM campaign_approval \
         WHERE campaign_name = $1 ORDER BY number",
        &[campaign.as_str().into()],
        |row| {
            Ok(ApprovalWord {
                wave: row.optional_integer(0)?.map(|wave| u32::try_from(wave).unwrap_or(u32::MAX)),
                approved: row.integer(1)? != 0,
                by: row.text(2)?,
                at: UnixMillis(row.integer(3)?),
                remark: row.parsed(4, "a remark")?,
                plan_sha256: row.parsed(5, "the digest of a plan")?,
            })
        },
    )
}

/// Adds a word; the campaign's gate is held.
pub(crate) fn add(tx: &Tx<'_>, campaign: &Text, word: &ApprovalWord) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO campaign_approval (campaign_name, number, wave, approved, said_by, at, remark, plan_sha256) \
         SELECT $1, COALESCE(MAX(number), 0) + 1, CAST($2 AS BIGINT), CAST($3 AS BIGINT), $4, CAST($5 AS BIGINT), $6, $7 \
         FROM campaign_approval WHERE campaign_name = $1",
        &[
            campaign.as_str().into(),
            word.wave.map(i64::from).into(),
            i64::from(word.approved).into(),
            (&word.by).into(),
            word.at.into(),
            word.remark.as_str().into(),
            (&word.plan_sha256.to_string()).into(),
        ],
    )?;
    Ok(())
}
