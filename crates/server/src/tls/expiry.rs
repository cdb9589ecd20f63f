//! When certificates and lists end, and the alarm that is raised before they do: an expired list of revoked
//! certificates, or an expired certificate, locks the whole fleet out.

use std::fmt;
use std::path::{Path, PathBuf};

use farrier_protocol::UnixMillis;
use serde::Deserialize;
use x509_parser::time::ASN1Time;

/// How long before its end something raises an alarm; at most half of its time before.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpiryAlarms {
    /// For the lists of revoked certificates, in hours.
    pub revocation_list_hours: u32,
    /// For certificates, in days.
    pub certificate_days: u32,
}

impl Default for ExpiryAlarms {
    fn default() -> Self {
        Self { revocation_list_hours: 48, certificate_days: 21 }
    }
}

/// What ends some day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Perishable {
    /// The certificate that vehicles see, or one above it.
    ServerCertificate,
    /// A root that vehicles' certificates lead to.
    ClientRoot,
    /// A list of revoked certificates.
    RevocationList,
    /// The certificate that operators see, or one above it.
    OperatorCertificate,
}

impl Perishable {
    /// As it stands in metrics and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServerCertificate => "server_certificate",
            Self::ClientRoot => "client_root",
            Self::RevocationList => "revocation_list",
            Self::OperatorCertificate => "operator_certificate",
        }
    }
}

/// From when until when something can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) of: Perishable,
    /// Its file.
    pub(super) path: PathBuf,
    /// The first moment.
    pub(super) from: UnixMillis,
    /// The last moment.
    pub(super) until: UnixMillis,
}

/// Something ends soon, or has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alarm {
    /// What.
    pub of: Perishable,
    /// Its file.
    pub path: PathBuf,
    /// Its last moment.
    pub until: UnixMillis,
    /// Whether that is over.
    pub is_over: bool,
}

impl Validity {
    pub(super) fn new(of: Perishable, path: &Path, from: ASN1Time, until: ASN1Time) -> Self {
        let milliseconds = |time: ASN1Time| UnixMillis(time.timestamp().saturating_mul(1000));
        Self { of, path: path.to_owned(), from: milliseconds(from), until: milliseconds(until) }
    }

    /// Whether `now` lies within.
    pub(super) fn contains(&self, now: UnixMillis) -> bool {
        // Both ends count as whole seconds, as they are written.
        let second = |time: UnixMillis| time.0.div_euclid(1000);
        (second(self.from)..=second(self.until)).contains(&second(now))
    }

    /// The alarm that is due at `now`, if one is.
    pub(super) fn alarm(&self, now: UnixMillis, alarms: &ExpiryAlarms) -> Option<Alarm> {
        let seconds = match self.of {
            Perishable::RevocationList => i64::from(alarms.revocation_list_hours) * 3600,
            Perishable::ServerCertificate | Perishable::ClientRoot | Perishable::OperatorCertificate => {
                i64::from(alarms.certificate_days) * 86_400
            }
        };
        let half = self.until.0.saturating_sub(self.from.0) / 2;
        let before = seconds.saturating_mul(1000).min(half);
        (now.0 > self.until.0.saturating_sub(before)).then(|| Alarm {
            of: self.of,
            path: self.path.clone(),
            until: self.until,
            is_over: now > self.until,
        })
    }
}

/// A moment as certificates write it.
pub(super) fn moment(time: UnixMillis) -> String {
    ASN1Time::from_timestamp(time.0.div_euclid(1000))
        .map_or_else(|_| format!("{} ms since 1970", time.0), |time| time.to_string())
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.of {
            Perishable::ServerCertificate => "The certificate that vehicles see",
            Perishable::ClientRoot => "A root of the vehicles' certificates",
            Perishable::RevocationList => "The list of revoked certificates",
            Perishable::OperatorCertificate => "The certificate that operators see",
        };
        let verb = if self.is_over { "has ended" } else { "ends" };
        let until = moment(self.until);
        let then = match self.of {
            Perishable::ServerCertificate | Perishable::ClientRoot => "vehicles cannot connect then",
            Perishable::RevocationList => {
                "vehicles cannot connect then, unless --allow-expired-revocation-list is given"
            }
            Perishable::OperatorCertificate => "operators cannot connect then",
        };
        write!(f, "{what} ({}) {verb} {until}: {then}. Put a new one in its place.", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn validity(of: Perishable, days: i64) -> Validity {
        let at = |seconds| ASN1Time::from_timestamp(seconds).unwrap();
        Validity::new(of, Path::new("x.pem"), at(0), at(days * DAY))
    }

    #[test]
    fn an_alarm_comes_before_the_end_and_stays_after_it() {
        let alarms = ExpiryAlarms::default();
        let list = validity(Perishable::RevocationList, 30);
        let at = |seconds: i64| list.alarm(UnixMillis(seconds * 1000), &alarms);
        assert_eq!(at(28 * DAY), None);
        let soon = at(28 * DAY + 1).unwrap();
        assert!(!soon.is_over && soon.to_string().contains("ends Jan 31"), "{soon}");
        let over = at(30 * DAY + 1).unwrap();
        assert!(over.is_over && over.to_string().contains("has ended"), "{over}");
    }

    #[test]
    fn what_is_made_for_a_short_time_raises_no_alarm_in_its_first_half() {
        let alarms = ExpiryAlarms::default();
        for of in [Perishable::RevocationList, Perishable::ServerCertificate] {
            let short = validity(of, 1);
            assert_eq!(short.alarm(UnixMillis(DAY * 500), &alarms), None);
            assert!(short.alarm(UnixMillis(DAY * 500 + 1), &alarms).is_some());
        }
    }
}
