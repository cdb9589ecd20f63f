//! The vehicle's wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use farrier_protocol::UnixMillis;

/// Now, as the vehicle's clock says; before 1970 it says 0.
pub(crate) fn now() -> UnixMillis {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}
