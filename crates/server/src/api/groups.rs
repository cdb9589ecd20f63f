//! Selections and fleet groups: explained, saved, changed, and which vehicles they have.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_campaign::{QueryError, Selection};
use farrier_protocol::{LongText, Text, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::etag::Resource;
use super::page::{Page, PageQuery, page};
use super::problem::Problem;
use super::request::{Caller, Document, InPath, InQuery};
use super::vehicles::{VehicleSummary, shown_page};
use super::{Api, name};
use crate::store::audit::{self, Actor, Change};
use crate::store::groups::{self, Group};
use crate::store::{StoreError, Tx, selection};

/// The body of a new group.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGroup {
    /// 1 to 64 characters [A-Za-z0-9._-].
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub(crate) name: String,
    /// Which vehicles it has; docs/operations.md has the language.
    pub(crate) query: String,
    pub(crate) note: Option<LongText>,
}

/// What a group is from now on.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangedGroup {
    pub(crate) query: String,
    pub(crate) note: Option<LongText>,
}

/// A fleet group as operators see it.
#[derive(Serialize, JsonSchema)]
pub(crate) struct GroupAnswer {
    name: Text,
    /// In its canonical form.
    #[schemars(with = "String")]
    query: Selection,
    note: Option<LongText>,
    created_at_ms: UnixMillis,
    updated_at_ms: UnixMillis,
}

/// A fleet group with what it means.
#[derive(Serialize, JsonSchema)]
pub(crate) struct GroupDetails {
    #[serde(flatten)]
    group: GroupAnswer,
    /// The query in plain English.
    meaning: String,
    /// How many vehicles it has now.
    count: u64,
}

/// A part of a group's vehicles.
#[derive(Serialize, JsonSchema)]
pub(super) struct GroupVehicles {
    /// How many vehicles the group has now.
    count: u64,
    #[serde(flatten)]
    page: Page<VehicleSummary>,
}

/// A query to be explained.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    query: String,
}

/// What a query means.
#[derive(Serialize, JsonSchema)]
pub(super) struct Explanation {
    /// The query as it is saved.
    #[schemars(with = "String")]
    canonical: Selection,
    /// In plain English.
    meaning: String,
    /// How many vehicles it selects now.
    count: u64,
    /// How the database finds them, in its own words.
    plan: Vec<String>,
}

/// Reads a query.
pub(super) fn parsed(query: &str) -> Result<Selection, Problem> {
    query.parse().map_err(|error: QueryError| Problem::query(&error))
}

pub(super) fn group_name(text: &str) -> Result<Text, Problem> {
    name(text, "group")
}

/// The query of a group, if there is one.
pub(super) fn by_name(tx: &Tx<'_>, name: &Text) -> Result<Option<Selection>, StoreError> {
    Ok(groups::by_name(tx, name)?.map(|group| group.selection))
}

/// How vehicles are chosen that are not named one by one.
pub(super) enum Chosen {
    Where(Selection),
    Group(Text),
}

impl Chosen {
    /// By what stands beside `vehicles` in a document; only one of the three can be there.
    pub(super) fn of(
        names_vehicles: bool,
        query: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Self>, Problem> {
        match (names_vehicles, query, group) {
            (_, None, None) => Ok(None),
            (false, Some(query), None) => {
                Ok(Some(Self::Where(parsed(query).map_err(|problem| problem.at("/where"))?)))
            }
            (false, None, Some(group)) => {
                Ok(Some(Self::Group(group_name(group).map_err(|problem| problem.at("/group"))?)))
            }
            (true, _, _) | (false, Some(_), Some(_)) => {
                Err(Problem::invalid("Expected one of vehicles, where and group, found several; keep one."))
            }
        }
    }

    pub(super) fn selection(&self, tx: &Tx<'_>) -> Result<Selection, Problem> {
        match self {
            Self::Where(selection) => Ok(selection.clone()),
            Self::Group(name) => selection_of(tx, name).map_err(|problem| problem.at("/group")),
        }
    }

    /// Where in the document it stands.
    pub(super) fn pointer(&self) -> &'static str {
        match self {
            Self::Where(_) => "/where",
            Self::Group(_) => "/group",
        }
    }
}

/// What a group that a query names has.
pub(super) fn selection_of(tx: &Tx<'_>, name: &Text) -> Result<Selection, Problem> {
    by_name(tx, name)?.ok_or_else(|| {
        Problem::invalid(format!("group: expected the name of a fleet group, found {:?}.", name.as_str()))
    })
}

fn found(tx: &Tx<'_>, name: &Text) -> Result<Group, Problem> {
    groups::by_name(tx, name)?.ok_or_else(|| Problem::not_found("group", name.as_str()))
}

impl From<&Group> for GroupAnswer {
    fn from(group: &Group) -> Self {
        Self {
            name: group.name.clone(),
            query: group.selection.clone(),
            note: group.note.clone(),
            created_at_ms: group.created_at,
            updated_at_ms: group.updated_at,
        }
    }
}

fn details(tx: &Tx<'_>, group: &Group) -> Result<GroupDetails, Problem> {
    Ok(GroupDetails {
        group: group.into(),
        meaning: group.selection.explain(),
        count: selection::count(tx, &group.selection)?,
    })
}

/// `POST /selections/explain`
pub(super) async fn explain(
    State(api): State<Api>,
    Document(Query { query }): Document<Query>,
) -> Result<Json<Explanation>, Problem> {
    let canonical = parsed(&query)?;
    let explained = api.read(move |tx| {
        Ok(Explanation {
            meaning: canonical.explain(),
            count: selection::count(tx, &canonical)?,
            plan: selection::plan(tx, &canonical)?,
            canonical,
        })
    });
    Ok(Json(explained.await?))
}

/// `GET /groups`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<Page<GroupAnswer>>, Problem> {
    let (limit, after) = (query.limit()?, query.after_name()?);
    let groups = api.read(move |tx| Ok(groups::page(tx, &after, limit + 1)?)).await?;
    page(groups, limit, |group| group.name.clone(), |group| Ok(group.into())).map(Json)
}

/// `POST /groups`
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewGroup>,
) -> Result<(StatusCode, Json<GroupDetails>), Problem> {
    let name = group_name(&new.name).map_err(|problem| problem.at("/name"))?;
    let (selection, actor) = (parsed(&new.query)?, caller.actor());
    let made = api.answer(move |tx, _, now| {
        tx.lock(GROUPS)?;
        if groups::by_name(tx, &name)?.is_some() {
            let detail = format!("There is a group {name} already; choose another name, or change that one.");
            return Err(Problem::conflict("GROUP_EXISTS", detail).at("/name"));
        }
        let group = Group { name, selection, note: new.note, created_at: now, updated_at: now };
        groups::put(tx, &group)?;
        record(tx, &actor, "group.created", None, Some(&group), now)?;
        Ok((StatusCode::CREATED, details(tx, &group)?))
    });
    made.await
}

/// The lock of whoever makes, changes or removes groups.
const GROUPS: &str = "groups";

/// A group as what an ETag is of.
pub(super) const GROUP: Resource = Resource {
    lock: |tx, _| tx.lock(GROUPS),
    settled: |tx, name| {
        let Ok(name) = name.parse() else { return Ok(None) };
        Ok(groups::by_name(tx, &name)?.map(|group| group.audited()))
    },
};

fn record(
    tx: &Tx<'_>,
    actor: &Actor,
    action: &'static str,
    before: Option<&Group>,
    after: Option<&Group>,
    now: UnixMillis,
) -> Result<(), Problem> {
    let Some(group) = after.or(before) else { return Ok(()) };
    let change = Change {
        action,
        object: format!("group/{}", group.name),
        detail: after.map(|group| group.selection.to_string()),
        before: before.map(Group::audited),
        after: after.map(Group::audited),
    };
    Ok(audit::record(tx, actor, change, now)?)
}

/// `GET /groups/{name}`
pub(super) async fn show(
    State(api): State<Api>,
    InPath(text): InPath<String>,
) -> Result<Json<GroupDetails>, Problem> {
    let name = group_name(&text)?;
    let shown = api.read(move |tx| details(tx, &found(tx, &name)?));
    Ok(Json(shown.await?))
}

/// `PUT /groups/{name}`: campaigns that took it in go on with the vehicles that they have.
pub(crate) async fn change(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(changed): Document<ChangedGroup>,
) -> Result<Json<GroupDetails>, Problem> {
    let (name, selection, actor) = (group_name(&text)?, parsed(&changed.query)?, caller.actor());
    let changed = api.write(move |tx, _, now| {
        tx.lock(GROUPS)?;
        let before = found(tx, &name)?;
        let after = Group { selection, note: changed.note, updated_at: now, ..before.clone() };
        if before.audited() == after.audited() {
            return details(tx, &before);
        }
        groups::put(tx, &after)?;
        record(tx, &actor, "group.changed", Some(&before), Some(&after), now)?;
        details(tx, &after)
    });
    Ok(Json(changed.await?))
}

/// `DELETE /groups/{name}`; gives what it was.
pub(crate) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<GroupAnswer>, Problem> {
    let (name, actor) = (group_name(&text)?, caller.actor());
    let deleted = api.write(move |tx, _, now| {
        tx.lock(GROUPS)?;
        let group = found(tx, &name)?;
        groups::delete(tx, &name)?;
        record(tx, &actor, "group.deleted", Some(&group), None, now)?;
        Ok(GroupAnswer::from(&group))
    });
    Ok(Json(deleted.await?))
}

/// `GET /groups/{name}/vehicles`
pub(super) async fn vehicles(
    State(api): State<Api>,
    InPath(text): InPath<String>,
    InQuery(query): InQuery<PageQuery>,
) -> Result<Json<GroupVehicles>, Problem> {
    let (name, limit, after, shown_by) =
        (group_name(&text)?, query.limit()?, query.after_name()?, api.clone());
    let listed = api.read(move |tx| {
        let group = found(tx, &name)?;
        let vehicles = selection::page(tx, &group.selection, &after, limit + 1)?;
        Ok(GroupVehicles {
            count: selection::count(tx, &group.selection)?,
            page: shown_page(tx, &shown_by, vehicles, limit)?,
        })
    });
    Ok(Json(listed.await?))
}
