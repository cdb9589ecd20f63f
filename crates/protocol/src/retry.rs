//! When to ask a vehicle again that is not ready (protocol.md §4, message 5).

use crate::message::{NotReadyReason, ReadinessReport};

/// When to ask again, and where the number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryAfter {
    /// Seconds from the reception of the report, 60 to 7,200.
    pub seconds: u64,
    /// How the number came about; to be recorded.
    pub origin: RetryOrigin,
}

/// How a `RetryAfter` came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOrigin {
    /// As the vehicle said.
    Sent,
    /// The vehicle said this many seconds, which is out of bounds.
    Clamped {
        /// What the vehicle said.
        sent: u64,
    },
    /// The vehicle said nothing: the middle of the range recommended for its first reason.
    Default,
}

/// The least that counts, in seconds (source document of message 5).
const LEAST_S: u64 = 60;
/// The most that counts, in seconds (source document of message 5).
const MOST_S: u64 = 7200;

impl ReadinessReport {
    /// When to ask again.
    pub fn retry_after(&self) -> RetryAfter {
        match self.retry_after_s {
            Some(sent @ LEAST_S..=MOST_S) => RetryAfter { seconds: sent, origin: RetryOrigin::Sent },
            Some(sent) => {
                RetryAfter { seconds: sent.clamp(LEAST_S, MOST_S), origin: RetryOrigin::Clamped { sent } }
            }
            None => RetryAfter { seconds: self.recommended_s(), origin: RetryOrigin::Default },
        }
    }

    fn recommended_s(&self) -> u64 {
        let first = self.not_ready_reasons.iter().flatten().next();
        first.copied().map_or(SYSTEM_RESOURCES_S, NotReadyReason::recommended_retry_s)
    }
}

/// The source document gives no range for system resources; the contract sets 300 to 1,800.
const SYSTEM_RESOURCES_S: u64 = middle(300, 1800);

const fn middle(least: u64, most: u64) -> u64 {
    u64::midpoint(least, most)
}

impl NotReadyReason {
    /// The middle of the range that the source document recommends for this reason's family, in seconds.
    pub fn recommended_retry_s(self) -> u64 {
        match self {
            Self::PowerLow | Self::PowerCharging | Self::PowerCritical => middle(1800, 3600),
            Self::TempHigh | Self::TempCooling | Self::TempCritical => middle(300, 1800),
            Self::CpuHigh | Self::MemoryLow | Self::StorageLow | Self::StorageFragmented => {
                SYSTEM_RESOURCES_S
            }
            Self::NetworkPoor | Self::NetworkDataLimit | Self::NetworkRoaming => middle(60, 600),
            Self::VehicleMoving | Self::VehicleHighSpeed | Self::VehicleEmergency => middle(60, 1800),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::ConditionValues;

    fn report(reasons: &[NotReadyReason], retry_after_s: Option<u64>) -> ReadinessReport {
        ReadinessReport {
            correlation_id: "SRV_1".parse().unwrap(),
            ready: false,
            requested_fields: ConditionValues::default(),
            not_ready_reasons: Some(reasons.to_vec()),
            retry_after_s,
        }
    }

    #[test]
    fn a_hint_within_bounds_counts_and_another_is_clamped_and_recorded() {
        for (sent, seconds) in
            [(0, 60), (59, 60), (60, 60), (1800, 1800), (7200, 7200), (7201, 7200), (u64::MAX, 7200)]
        {
            let retry = report(&[NotReadyReason::PowerLow], Some(sent)).retry_after();
            let origin = if sent == seconds { RetryOrigin::Sent } else { RetryOrigin::Clamped { sent } };
            assert_eq!(retry, RetryAfter { seconds, origin });
        }
    }

    #[test]
    fn without_a_hint_the_first_reason_decides() {
        use NotReadyReason as R;
        let expected = [
            (R::PowerLow, 2700),
            (R::PowerCharging, 2700),
            (R::PowerCritical, 2700),
            (R::TempHigh, 1050),
            (R::TempCooling, 1050),
            (R::TempCritical, 1050),
            (R::CpuHigh, 1050),
            (R::MemoryLow, 1050),
            (R::StorageLow, 1050),
            (R::StorageFragmented, 1050),
            (R::NetworkPoor, 330),
            (R::NetworkDataLimit, 330),
            (R::NetworkRoaming, 330),
            (R::VehicleMoving, 930),
            (R::VehicleHighSpeed, 930),
            (R::VehicleEmergency, 930),
        ];
        assert_eq!(expected.len(), R::ALL.len());
        for (reason, seconds) in expected {
            let retry = report(&[reason, R::PowerLow], None).retry_after();
            assert_eq!(retry, RetryAfter { seconds, origin: RetryOrigin::Default });
        }
    }
}
