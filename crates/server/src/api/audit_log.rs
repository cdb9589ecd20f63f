//! The audit log as operators read it.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Api;
use super::page::{cursor, limit, place};
use super::problem::Problem;
use super::request::InQuery;
use crate::audit::{AuditEntry, AuditHead};
use crate::store::audit;

/// Which part of the log.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// How many at most; 100 where it is absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// The `next` of the page before; the first page where it is absent.
    after: Option<String>,
    /// `newest`, which is what counts where it is absent, or `oldest`.
    first: Option<First>,
}

/// Where a list begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum First {
    Newest,
    Oldest,
}

/// A part of the audit log, and where the log ends.
#[derive(Serialize, JsonSchema)]
pub(super) struct AuditPage {
    items: Vec<AuditEntry>,
    /// Where the next page begins: to be given as `after`. Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    head: AuditHead,
}

/// `GET /audit`
pub(super) async fn list(
    State(api): State<Api>,
    InQuery(query): InQuery<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let limit = limit(query.limit)?;
    let after: Option<u64> = query.after.as_deref().map(|text| cursor(text, "after")).transpose()?;
    let (mut items, head) = api
        .read(move |tx| {
            let items = match query.first.unwrap_or(First::Newest) {
                First::Newest => audit::page_back(tx, after, limit + 1)?,
                First::Oldest => audit::page(tx, after.unwrap_or(0), limit + 1)?,
            };
            Ok((items, audit::head(tx)?))
        })
        .await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = items.len() > most;
    items.truncate(most);
    let next = items.last().filter(|_| has_more).map(|entry| place(&entry.seq));
    Ok(Json(AuditPage { items, next, head }))
}
