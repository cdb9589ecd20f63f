//! What operators were told of that ends soon, or has ended: by all servers together, and whatever restarts there are, once.

use farrier_protocol::UnixMillis;

use super::{StoreError, Tx};
use crate::tls::Alarm;

/// How long it is remembered, in ms: as long as the security event that tells it. An alarm that is still on then is told again.
const REMEMBERED_MS: i64 = 400 * 86_400_000;

/// Remembers that an alarm is told; says whether it was not told before. One with another end, or that is over now, is another.
pub(crate) fn tell(tx: &Tx<'_>, alarm: &Alarm, now: UnixMillis) -> Result<bool, StoreError> {
    let before = UnixMillis(now.0.saturating_sub(REMEMBERED_MS));
    tx.exec("DELETE FROM told_expiry WHERE told_at < $1", &[before.into()])?;
    let path = alarm.path.to_string_lossy();
    let told = tx.exec(
        "INSERT INTO told_expiry (subject, path, ends_at, is_over, told_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (subject, path, ends_at, is_over) DO NOTHING",
        &[
            alarm.of.name().into(),
            path.as_ref().into(),
            alarm.until.into(),
            i64::from(alarm.is_over).into(),
            now.into(),
        ],
    )?;
    Ok(told > 0)
}
