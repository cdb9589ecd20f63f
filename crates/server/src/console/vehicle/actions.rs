//! What can be done about a vehicle: each says what will happen before it happens, and is done by the API's own operation.

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use farrier_protocol::Text;
use serde::Deserialize;

use crate::access::Permission;
use crate::api::vehicle_changes::Rebinding;
use crate::api::{self, Problem};
use crate::console::Console;
use crate::console::confirm::ConfirmPage;
use crate::console::form::{self, Field, Kind};
use crate::console::format::number;
use crate::console::objection::Objection;
use crate::console::page::{Failed, Frame, Section, shown, with_status};
use crate::console::session::Visitor;
use crate::console::texts::{Texts, filled};
use crate::store::set_aside;

/// Of the vehicle itself, or of one of its updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    AskInventory,
    EndQuarantine,
    Rebind,
    Cancel,
    RollBack,
}

impl Act {
    /// Of the vehicle itself, by the last part of the address.
    fn of_vehicle(name: &str) -> Option<Self> {
        match name {
            "ask-inventory" => Some(Self::AskInventory),
            "release" => Some(Self::EndQuarantine),
            "rebind" => Some(Self::Rebind),
            _ => None,
        }
    }

    fn of_update(name: &str) -> Option<Self> {
        match name {
            "cancel" => Some(Self::Cancel),
            "rollback" => Some(Self::RollBack),
            _ => None,
        }
    }

    fn verb(self, t: &Texts) -> &'static str {
        match self {
            Self::AskInventory => t.ask_inventory,
            Self::EndQuarantine => t.end_quarantine,
            Self::Rebind => t.rebind,
            Self::Cancel => t.cancel_update,
            Self::RollBack => t.roll_back,
        }
    }

    fn consequence(self, t: &Texts) -> &'static str {
        match self {
            Self::AskInventory => t.will_ask_inventory,
            Self::EndQuarantine => t.will_end_quarantine,
            Self::Rebind => t.will_rebind,
            Self::Cancel => t.will_cancel,
            Self::RollBack => t.will_roll_back,
        }
    }

    fn is_grave(self) -> bool {
        matches!(self, Self::Rebind | Self::Cancel | Self::RollBack)
    }

    fn fields(self, t: &'static Texts, typed: &Typed) -> Vec<Field> {
        let reason = || Field::new("reason", t.reason, Kind::Text(128, Vec::new()), &typed.reason);
        match self {
            Self::Cancel => vec![reason()],
            Self::Rebind => vec![
                Field::text("gateway_id", t.gateway, &typed.gateway_id).with_hint(t.hint_gateway),
                Field::text("thumbprint", t.certificate, &typed.thumbprint).with_hint(t.hint_thumbprint),
                reason(),
            ],
            Self::AskInventory | Self::EndQuarantine | Self::RollBack => Vec::new(),
        }
    }
}

/// What is said with an action.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(in crate::console) struct Typed {
    reason: String,
    gateway_id: String,
    thumbprint: String,
}

/// What it is about: a vehicle, with a campaign where it is about one.
struct About {
    vehicle: String,
    of: Option<String>,
}

fn page(visitor: &Visitor, act: Act, about: &About, typed: &Typed, refused: Option<&Problem>) -> Response {
    let t = visitor.guest.language.texts();
    let mut fields = act.fields(t, typed);
    let fault = refused.map(|problem| Objection::of(t, problem));
    let named = refused.and_then(Problem::pointer).map(|pointer| pointer.trim_start_matches('/'));
    let at_fault = fields.iter_mut().find(|field| Some(field.name.as_str()) == named);
    let refused_for = match at_fault {
        Some(field) => {
            field.fault = fault;
            None
        }
        None => fault,
    };
    let what =
        about.of.as_ref().map_or_else(|| about.vehicle.clone(), |of| format!("{} · {of}", about.vehicle));
    let (title, back) = (format!("{}: {what}", act.verb(t)), format!("/vehicles/{}", about.vehicle));
    let frame = framed(visitor);
    let page = ConfirmPage::new(frame, title, act.consequence(t).to_owned(), act.verb(t), back);
    let page = ConfirmPage { refused: refused_for, fields, is_grave: act.is_grave(), ..page };
    with_status(refused.map_or(StatusCode::OK, Problem::status), &page)
}

fn framed(visitor: &Visitor) -> Frame {
    Frame { section: Some(Section::Vehicles), ..visitor.frame() }
}

fn no_such_page(visitor: &Visitor, name: &str) -> Failed {
    visitor.failed(Problem::not_found("page", name))
}

/// `GET /vehicles/{id}/{action}`
pub(in crate::console) async fn ask(
    visitor: Visitor,
    Path((vehicle, action)): Path<(String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let act = Act::of_vehicle(&action).ok_or_else(|| no_such_page(&visitor, &action))?;
    Ok(page(&visitor, act, &About { vehicle, of: None }, &Typed::default(), None))
}

/// `POST /vehicles/{id}/{action}`
pub(in crate::console) async fn act(
    State(console): State<Console>,
    visitor: Visitor,
    Path((vehicle, action)): Path<(String, String)>,
    Form(typed): Form<Typed>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let act = Act::of_vehicle(&action).ok_or_else(|| no_such_page(&visitor, &action))?;
    done(console, visitor, act, About { vehicle, of: None }, typed).await
}

/// `GET /vehicles/{id}/{campaign}/{action}`
pub(in crate::console) async fn ask_of_update(
    visitor: Visitor,
    Path((vehicle, campaign, action)): Path<(String, String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let act = Act::of_update(&action).ok_or_else(|| no_such_page(&visitor, &action))?;
    Ok(page(&visitor, act, &About { vehicle, of: Some(campaign) }, &Typed::default(), None))
}

/// `POST /vehicles/{id}/{campaign}/{action}`
pub(in crate::console) async fn act_on_update(
    State(console): State<Console>,
    visitor: Visitor,
    Path((vehicle, campaign, action)): Path<(String, String, String)>,
    Form(typed): Form<Typed>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let act = Act::of_update(&action).ok_or_else(|| no_such_page(&visitor, &action))?;
    done(console, visitor, act, About { vehicle, of: Some(campaign) }, typed).await
}

/// `GET /vehicles/{id}/set-aside/{release}/take-back`: says what taking the vehicle back for the release means.
pub(in crate::console) async fn ask_to_take_back(
    State(console): State<Console>,
    visitor: Visitor,
    Path((vehicle, release)): Path<(String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let t = visitor.guest.language.texts();
    let (asked, of) = (vehicle.clone(), release.clone());
    let one = console.api.read(move |tx| {
        let (vehicle_id, release) = (api::vehicle_id(&asked)?, api::name(&of, "release")?);
        let one = set_aside::of(tx, &vehicle_id, &release)?;
        one.ok_or_else(|| Problem::not_found("set-aside vehicle", &asked))
    });
    let one = one.await.map_err(|problem| visitor.failed(problem))?;
    let title = filled(t.take_back_vehicle, &[&vehicle]);
    let consequence = filled(t.will_take_back, &[&number(one.failures), &release, &one.code]);
    let back = format!("/vehicles/{vehicle}");
    Ok(shown(&ConfirmPage::new(framed(&visitor), title, consequence, t.take_back, back)))
}

/// `POST /vehicles/{id}/set-aside/{release}/take-back`
pub(in crate::console) async fn take_back(
    State(console): State<Console>,
    visitor: Visitor,
    Path((vehicle, release)): Path<(String, String)>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Operate)?;
    let path = api::InPath((vehicle.clone(), release));
    let taken = api::set_aside::take_back(State(console.api.clone()), visitor.caller(), path).await;
    taken.map(drop).map_err(|problem| visitor.failed(problem))?;
    Ok(Redirect::to(&format!("/vehicles/{vehicle}")).into_response())
}

async fn done(
    console: Console,
    visitor: Visitor,
    act: Act,
    about: About,
    typed: Typed,
) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    let (api, caller) = (State(console.api), visitor.caller());
    let (vehicle, of) = (about.vehicle.clone(), about.of.clone().unwrap_or_default());
    let done = match act {
        Act::AskInventory => api::ask_inventory::ask(api, caller, api::InPath(vehicle)).await.map(|_| ()),
        Act::EndQuarantine => api::vehicles::release(api, caller, api::InPath(vehicle)).await.map(|_| ()),
        Act::RollBack => api::campaigns::rollback(api, caller, api::InPath((of, vehicle))).await.map(|_| ()),
        Act::Cancel => match reason(t, &typed.reason) {
            Ok(reason) => {
                let body = api::Document(api::campaigns::CancelReason { reason });
                api::campaigns::cancel(api, caller, api::InPath((of, vehicle)), body).await.map(|_| ())
            }
            Err(problem) => Err(problem),
        },
        Act::Rebind => match rebinding(t, &typed) {
            Ok(new) => {
                let rebound =
                    api::vehicle_changes::rebind(api, caller, api::InPath(vehicle), api::Document(new));
                rebound.await.map(|_| ())
            }
            Err(problem) => Err(problem),
        },
    };
    match done {
        Ok(()) => Ok(Redirect::to(&format!("/vehicles/{}", about.vehicle)).into_response()),
        Err(problem) if problem.status().is_server_error() || problem.status() == StatusCode::NOT_FOUND => {
            Err(visitor.failed(problem))
        }
        Err(problem) => Ok(page(&visitor, act, &about, &typed, Some(&problem))),
    }
}

fn reason(t: &Texts, typed: &str) -> Result<Text, Problem> {
    let read = form::read(t, typed, t.of_forms.a_short_text);
    read.map_err(|what| Problem::invalid(what).localised().at("/reason"))
}

fn rebinding(t: &Texts, typed: &Typed) -> Result<Rebinding, Problem> {
    let wrong = |pointer: &str, expected: &str, found: &str| {
        Problem::invalid(form::unfit(t, expected, found)).localised().at(pointer)
    };
    let gateway_id = match typed.gateway_id.trim() {
        "" => None,
        text => Some(text.parse().map_err(|_| wrong("/gateway_id", t.a_gateway_id, text))?),
    };
    let thumbprint = match typed.thumbprint.trim() {
        "" => None,
        text => Some(text.parse().map_err(|_| wrong("/thumbprint", t.a_thumbprint, text))?),
    };
    Ok(Rebinding { gateway_id, thumbprint, reason: reason(t, &typed.reason)? })
}
