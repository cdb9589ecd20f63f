//! `/campaigns`: all of them, with state, progress and when each will be done; by state, in one of two orders.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use farrier_protocol::UnixMillis;
use serde::Deserialize;

use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::texts::Texts;
use super::{Console, progress};
use crate::api::{self, Problem};
use crate::conversation::Rules;
use crate::store::campaigns::{self, Campaign, Made};
use crate::store::{StoreError, Tx};

/// Campaigns on a page.
const ON_A_PAGE: usize = 50;
/// Campaigns that are read at a time, and how often, until a page is full: their state is not a column.
const READ_AT_A_TIME: u32 = 100;
const READ_TIMES: u32 = 20;

/// Which campaigns are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    All,
    /// Starting, running, paused or stopped.
    UnderWay,
    /// A second person has to approve its start or its next wave.
    AwaitingApproval,
    In(&'static str),
}

impl Filter {
    const ALL: [Self; 10] = [
        Self::All,
        Self::UnderWay,
        Self::AwaitingApproval,
        Self::In("draft"),
        Self::In("starting"),
        Self::In("running"),
        Self::In("paused"),
        Self::In("stopped"),
        Self::In("finished"),
        Self::In("aborted"),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::All => "",
            Self::UnderWay => "under_way",
            Self::AwaitingApproval => "awaiting_approval",
            Self::In(state) => state,
        }
    }

    fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::All => t.all_states,
            Self::UnderWay => t.under_way,
            Self::AwaitingApproval => t.awaiting_approval,
            Self::In(state) => t.campaign_state(state),
        }
    }

    fn takes(self, tx: &Tx<'_>, rules: &Rules, campaign: &Campaign) -> Result<bool, StoreError> {
        let state = || Ok(campaign.state_name(&campaigns::counts(tx, &campaign.name)?));
        match self {
            Self::All => Ok(true),
            Self::UnderWay => {
                let state: Result<_, StoreError> = state();
                Ok(matches!(state?, "starting" | "running" | "paused" | "stopped"))
            }
            Self::AwaitingApproval => Ok(api::approvals::awaited(tx, rules, campaign)?.is_some()),
            Self::In(wanted) => {
                let state: Result<_, StoreError> = state();
                Ok(state? == wanted)
            }
        }
    }
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Newest,
    Name,
}

impl Order {
    const ALL: [Self; 2] = [Self::Newest, Self::Name];

    fn name(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Name => "name",
        }
    }

    fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::Newest => t.newest_first,
            Self::Name => t.by_name,
        }
    }

    /// Where a campaign stands in it.
    fn place(self, campaign: &Campaign) -> String {
        match self {
            Self::Newest => api::place(&(campaign.created_at, &campaign.name)),
            Self::Name => campaign.name.to_string(),
        }
    }

    fn page(self, tx: &Tx<'_>, after: &str) -> Result<Vec<Campaign>, Problem> {
        match (self, after) {
            (Self::Name, after) => Ok(campaigns::page(tx, after, READ_AT_A_TIME)?),
            (Self::Newest, "") => {
                let from = Made { at: UnixMillis(i64::MAX), name: String::new() };
                Ok(campaigns::page_of_newest(tx, &from, READ_AT_A_TIME)?)
            }
            (Self::Newest, after) => {
                let (at, name) = api::cursor(after, "after")?;
                Ok(campaigns::page_of_newest(tx, &Made { at, name }, READ_AT_A_TIME)?)
            }
        }
    }
}

#[derive(Template)]
#[template(path = "campaigns.html")]
struct CampaignsPage {
    frame: Frame,
    rows: Vec<progress::CampaignRow>,
    filter: Filter,
    order: Order,
    /// Where the next page begins.
    next: Option<String>,
    is_first: bool,
}

impl CampaignsPage {
    fn filters(&self) -> [Filter; 10] {
        Filter::ALL
    }

    fn orders(&self) -> [Order; 2] {
        Order::ALL
    }
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    state: String,
    #[serde(default)]
    order: String,
    #[serde(default)]
    after: String,
}

/// `GET /campaigns`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { state, order, after }): Query<Asked>,
) -> Result<Response, Failed> {
    let filter = Filter::ALL.into_iter().find(|filter| filter.name() == state).unwrap_or(Filter::All);
    let order = Order::ALL.into_iter().find(|known| known.name() == order).unwrap_or(Order::Newest);
    let (t, now, is_first) = (visitor.guest.language.texts(), console.api.now(), after.is_empty());
    let rules = console.api.rules.clone();
    let seen = console.api.read(move |tx| {
        let (found, next) = found(tx, &rules, filter, order, after)?;
        let rows = found.iter().map(|campaign| progress::row(tx, t, campaign, now));
        Ok((rows.collect::<Result<Vec<_>, _>>()?, next))
    });
    let (rows, next) = seen.await.map_err(|problem| visitor.failed(problem))?;
    Ok(shown(&CampaignsPage { frame: visitor.frame(), rows, filter, order, next, is_first }))
}

/// A page of campaigns, and where the next one begins. Of very many that are not meant only some are read, and the page is not
/// full.
fn found(
    tx: &Tx<'_>,
    rules: &Rules,
    filter: Filter,
    order: Order,
    mut after: String,
) -> Result<(Vec<Campaign>, Option<String>), Problem> {
    let mut found = Vec::new();
    for _ in 0..READ_TIMES {
        let page = order.page(tx, &after)?;
        let is_last = page.len() < READ_AT_A_TIME as usize;
        for campaign in page {
            if found.len() == ON_A_PAGE {
                return Ok((found, Some(after)));
            }
            after = order.place(&campaign);
            if filter.takes(tx, rules, &campaign)? {
                found.push(campaign);
            }
        }
        if is_last {
            return Ok((found, None));
        }
    }
    Ok((found, Some(after)))
}
