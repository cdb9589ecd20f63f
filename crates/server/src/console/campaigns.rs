//! `/campaigns`: all of them, with state and progress.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::{Console, progress};
use crate::store::campaigns;

/// Campaigns on a page.
const ON_A_PAGE: u32 = 50;

#[derive(Template)]
#[template(path = "campaigns.html")]
struct CampaignsPage {
    frame: Frame,
    rows: Vec<progress::CampaignRow>,
    /// The name after which the next page begins.
    next: Option<String>,
    is_first: bool,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    after: String,
}

/// `GET /campaigns`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { after }): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, from) = (visitor.guest.language.texts(), after.clone());
    let rows = console.api.read(move |tx| {
        let mut rows = Vec::new();
        for campaign in campaigns::page(tx, &from, ON_A_PAGE + 1)? {
            let counts = campaigns::counts(tx, &campaign.name)?;
            rows.push(progress::row(t, &campaign, &counts));
        }
        Ok(rows)
    });
    let mut rows = rows.await.map_err(|problem| visitor.failed(problem))?;
    let has_more = rows.len() > ON_A_PAGE as usize;
    rows.truncate(ON_A_PAGE as usize);
    let next = rows.last().filter(|_| has_more).map(|row| row.name.clone());
    Ok(shown(&CampaignsPage { frame: visitor.frame(), rows, next, is_first: after.is_empty() }))
}
