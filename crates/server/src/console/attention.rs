//! What needs somebody's attention: counted on the fleet's page, and listed one by one behind each count.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use farrier_protocol::UnixMillis;
use serde::Deserialize;

use super::format::{Time, absolute, number, time, time_or_never};
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::{Texts, filled};
use super::{Console, why};
use crate::api::{self, Problem};
use crate::conversation::Rules;
use crate::store::campaigns::Campaign;
use crate::store::{
    StoreError, Tx, fleet, set_aside, silent, updates, vehicle_certificates, vehicles, webhooks,
};

/// Rows on a page.
const ON_A_PAGE: u32 = 50;

/// Something that somebody should look at.
pub(super) struct Attention {
    /// `bad` or `warn`.
    pub(super) class: &'static str,
    pub(super) sentence: String,
    /// Where exactly these are.
    pub(super) link: String,
}

/// Vehicles that need attention for the same reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inconsistent,
    ServiceRequired,
    Unknown,
    Quarantined,
    SetAside,
    Silent,
    CertificateEnds,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Inconsistent,
        Self::ServiceRequired,
        Self::Unknown,
        Self::Quarantined,
        Self::SetAside,
        Self::Silent,
        Self::CertificateEnds,
    ];

    /// As the address names it.
    fn name(self) -> &'static str {
        match self {
            Self::Inconsistent => "inconsistent",
            Self::ServiceRequired => "service-required",
            Self::Unknown => "unknown",
            Self::Quarantined => "quarantined",
            Self::SetAside => "set-aside",
            Self::Silent => "silent",
            Self::CertificateEnds => "certificate-ends",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::Inconsistent | Self::ServiceRequired => "bad",
            Self::Unknown | Self::Quarantined | Self::SetAside | Self::Silent | Self::CertificateEnds => {
                "warn"
            }
        }
    }

    /// With how many there are.
    fn sentence(self, t: &Texts) -> &'static str {
        match self {
            Self::Inconsistent => t.attention_inconsistent,
            Self::ServiceRequired => t.attention_service_required,
            Self::Unknown => t.attention_unknown,
            Self::Quarantined => t.attention_quarantined,
            Self::SetAside => t.attention_set_aside,
            Self::Silent => t.attention_silent,
            Self::CertificateEnds => t.attention_certificate_ends,
        }
    }

    /// What is to be done about them.
    fn advice(self, t: &Texts) -> &'static str {
        match self {
            Self::Inconsistent => t.advice_inconsistent,
            Self::ServiceRequired => t.advice_service_required,
            Self::Unknown => t.advice_unknown,
            Self::Quarantined => t.advice_quarantined,
            Self::SetAside => t.advice_set_aside,
            Self::Silent => t.advice_silent,
            Self::CertificateEnds => t.advice_certificate_ends,
        }
    }

    /// Of what the time in a list of them tells.
    fn time_heading(self, t: &Texts) -> &'static str {
        match self {
            Self::Inconsistent
            | Self::ServiceRequired
            | Self::Unknown
            | Self::Quarantined
            | Self::SetAside
            | Self::Silent => t.since,
            Self::CertificateEnds => t.ends,
        }
    }

    fn count(
        self,
        tx: &Tx<'_>,
        by_state: &BTreeMap<String, u64>,
        now: UnixMillis,
    ) -> Result<u64, StoreError> {
        match self {
            Self::Inconsistent | Self::Unknown => Ok(by_state.get(self.name()).copied().unwrap_or_default()),
            Self::ServiceRequired => set_aside::count_service_required(tx),
            Self::Quarantined => fleet::quarantined(tx),
            Self::SetAside => set_aside::count(tx),
            Self::Silent => silent::count(tx),
            Self::CertificateEnds => vehicle_certificates::count_ending(tx, vehicle_certificates::soon(now)),
        }
    }
}

/// All that needs attention, the worst first.
pub(super) fn all(
    tx: &Tx<'_>,
    t: &'static Texts,
    rules: &Rules,
    not_over: &[Campaign],
    by_state: &BTreeMap<String, u64>,
    ending: &[(&'static str, UnixMillis)],
    now: UnixMillis,
) -> Result<Vec<Attention>, StoreError> {
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let vehicles = kind.count(tx, by_state, now)?;
        if vehicles > 0 {
            let sentence = filled(kind.sentence(t), &[&number(vehicles)]);
            all.push(Attention {
                class: kind.class(),
                sentence,
                link: format!("/attention/{}", kind.name()),
            });
        }
    }
    let stopped = not_over.iter().filter(|campaign| campaign.stopped.is_some()).count();
    let mut awaiting = 0_usize;
    for campaign in not_over {
        awaiting =
            awaiting.saturating_add(usize::from(api::approvals::awaited(tx, rules, campaign)?.is_some()));
    }
    for (class, number_of, sentence, state) in [
        ("bad", stopped, t.attention_stopped, "stopped"),
        ("warn", awaiting, t.attention_approval, "awaiting_approval"),
    ] {
        if number_of > 0 {
            let (sentence, link) =
                (filled(sentence, &[&number(number_of)]), format!("/campaigns?state={state}"));
            all.push(Attention { class, sentence, link });
        }
    }
    let failing = webhooks::failing(tx)?;
    if failing > 0 {
        let sentence = filled(t.attention_webhooks, &[&number(failing)]);
        all.push(Attention { class: "warn", sentence, link: "/settings/webhooks".to_owned() });
    }
    for (what, ends_at) in ending {
        let sentence = filled(t.attention_expiry, &[*what, &absolute(*ends_at)]);
        all.push(Attention { class: "warn", sentence, link: "/settings/certificates".to_owned() });
    }
    all.sort_by_key(|one| one.class != "bad");
    Ok(all)
}

/// A vehicle that needs attention.
struct Row {
    vehicle_id: String,
    campaign: Option<String>,
    detail: String,
    since: Time,
}

#[derive(Template)]
#[template(path = "attention.html")]
struct AttentionPage {
    frame: Frame,
    title: String,
    advice: &'static str,
    rows: Vec<Row>,
    next: Option<String>,
    is_first: bool,
    kind: &'static str,
    time_heading: &'static str,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    after: String,
}

/// `GET /attention/{kind}`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Path(name): Path<String>,
    Query(Asked { after }): Query<Asked>,
) -> Result<Response, Failed> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let kind = kind.ok_or_else(|| visitor.failed(Problem::not_found("page", &name)))?;
    let (language, now, is_first) = (visitor.guest.language, console.api.now(), after.is_empty());
    let t = language.texts();
    let seen = console.api.read(move |tx| {
        let by_state = crate::store::campaigns::counts_of_all(tx)?;
        let limit = ON_A_PAGE + 1;
        let of_updates = |state: &str| {
            // The newest first.
            let before = if after.is_empty() { "~" } else { &after };
            let found = updates::page_of_outcome(tx, state, before, limit)?;
            Ok::<_, Problem>(found.into_iter().map(|update| {
                let row = Row {
                    vehicle_id: update.vehicle_id.to_string(),
                    campaign: Some(update.campaign.to_string()),
                    detail: why::sentence(language, &update.state, now),
                    since: time(t, update.updated_at, now),
                };
                (update.id, row)
            }))
        };
        let of_vehicle = |vehicle_id: String, campaign, detail, since| {
            (vehicle_id.clone(), Row { vehicle_id, campaign, detail, since })
        };
        let rows: Vec<(String, Row)> = match kind {
            Kind::Inconsistent | Kind::Unknown => of_updates(kind.name())?.collect(),
            Kind::ServiceRequired => set_aside::page_service_required(tx, &after, limit)?
                .into_iter()
                .map(|(id, campaign, at)| {
                    let code = "SERVICE_REQUIRED".to_owned();
                    of_vehicle(id.to_string(), Some(campaign.to_string()), code, time(t, at, now))
                })
                .collect(),
            Kind::Quarantined => vehicles::page_of_quarantined(tx, &after, limit)?
                .into_iter()
                .map(|(id, at)| of_vehicle(id.to_string(), None, t.quarantined.to_owned(), time(t, at, now)))
                .collect(),
            Kind::Silent => silent::page(tx, &after, limit)?
                .into_iter()
                .map(|(id, at)| {
                    of_vehicle(id.to_string(), None, t.last_seen.to_owned(), time_or_never(t, at, now))
                })
                .collect(),
            Kind::CertificateEnds => {
                let (ends_at, vehicle) = after.split_once(' ').unwrap_or_default();
                let place = (UnixMillis(ends_at.parse().unwrap_or(i64::MIN)), vehicle);
                let before = vehicle_certificates::soon(now);
                let found = vehicle_certificates::page_of_ending(tx, before, place, limit)?;
                let rows = found.into_iter().map(|(id, at)| {
                    let detail = if at < now { t.certificate_has_ended } else { t.certificate_ends_soon };
                    let row = Row {
                        vehicle_id: id.to_string(),
                        campaign: None,
                        detail: detail.to_owned(),
                        since: time(t, at, now),
                    };
                    (format!("{} {id}", at.0), row)
                });
                rows.collect()
            }
            Kind::SetAside => {
                let (vehicle, release) = after.split_once(' ').unwrap_or_default();
                let found = set_aside::page(tx, (vehicle, release), limit)?;
                let rows = found.into_iter().map(|one| {
                    let texts = [one.release.to_string(), number(one.failures), one.code];
                    let row = Row {
                        vehicle_id: one.vehicle_id.to_string(),
                        campaign: Some(one.campaign.to_string()),
                        detail: filled(t.set_aside_detail, &[&texts[0], &texts[1], &texts[2]]),
                        since: time(t, one.at, now),
                    };
                    (format!("{} {}", one.vehicle_id, one.release), row)
                });
                rows.collect()
            }
        };
        Ok((kind.count(tx, &by_state, now)?, rows))
    });
    let (count, mut rows) = seen.await.map_err(|problem| visitor.failed(problem))?;
    let has_more = rows.len() > ON_A_PAGE as usize;
    rows.truncate(ON_A_PAGE as usize);
    let next = rows.last().filter(|_| has_more).map(|(place, _)| place.clone());
    Ok(shown(&AttentionPage {
        frame: visitor.frame(),
        title: filled(kind.sentence(t), &[&number(count)]),
        advice: kind.advice(t),
        rows: rows.into_iter().map(|(_, row)| row).collect(),
        next,
        is_first,
        kind: kind.name(),
        time_heading: kind.time_heading(t),
    }))
}
