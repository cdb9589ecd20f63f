//! Certificates and lists of revoked ones: when each kind ends, and what to do before.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use farrier_protocol::UnixMillis;

use super::{Tab, tabs};
use crate::console::Console;
use crate::console::format::{Time, absolute, time};
use crate::console::page::{Frame, shown};
use crate::console::session::Visitor;
use crate::console::texts::Texts;
use crate::tls::Perishable;

struct Row {
    name: &'static str,
    used_for: &'static str,
    ends: Time,
    at: String,
    class: &'static str,
    state: &'static str,
    what_to_do: &'static str,
}

#[derive(Template)]
#[template(path = "certificates.html")]
struct CertificatesPage {
    frame: Frame,
    tabs: Vec<(&'static str, &'static str, bool)>,
    rows: Vec<Row>,
}

/// `GET /settings/certificates`
pub(in crate::console) async fn page(State(console): State<Console>, visitor: Visitor) -> Response {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let ends = console.api.vitals.ends(now);
    let rows = ends.into_iter().map(|(of, at, is_alarm)| row(t, of, at, is_alarm, now)).collect();
    shown(&CertificatesPage { frame: visitor.frame(), tabs: tabs(&visitor, Tab::Certificates), rows })
}

fn row(t: &'static Texts, of: Perishable, at: UnixMillis, is_alarm: bool, now: UnixMillis) -> Row {
    let (name, used_for, what_to_do) = match of {
        Perishable::ServerCertificate => {
            (t.server_certificate, t.server_certificate_for, t.renew_server_certificate)
        }
        Perishable::ClientRoot => (t.client_root, t.client_root_for, t.renew_client_root),
        Perishable::RevocationList => (t.revocation_list, t.revocation_list_for, t.renew_revocation_list),
        Perishable::OperatorCertificate => {
            (t.operator_certificate, t.operator_certificate_for, t.renew_operator_certificate)
        }
    };
    let (class, state) = match (at.0 < now.0, is_alarm) {
        (true, _) => ("bad", t.has_ended),
        (false, true) => ("warn", t.ends_soon),
        (false, false) => ("ok", t.is_good),
    };
    Row { name, used_for, ends: time(t, at, now), at: absolute(at), class, state, what_to_do }
}
