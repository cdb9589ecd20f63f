//! `farrier token`: makes, lists and revokes operators' tokens.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Deserialize;
use serde_json::json;

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{moment, plain, print, print_json, table};
use crate::time_span::time_span;

#[derive(Args)]
pub(crate) struct Token {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a token; it is shown once.
    Create {
        /// Names it for ever, in the list and in the audit log.
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        scope: Scope,
        /// When it stops working, as 90d, 12h, 30m or 45s from now; without it, it works until it is revoked.
        #[arg(long, value_name = "TIME", value_parser = time_span)]
        expires_in: Option<Duration>,
    },
    /// List the tokens, without their secrets.
    List,
    /// Revoke a token, at once.
    Revoke {
        /// The token's name.
        name: String,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Scope {
    /// Sees everything, changes nothing.
    Viewer,
    /// Enrols and releases vehicles, plans, starts and ends campaigns.
    Operator,
    /// Brings images and makes releases.
    ReleaseManager,
    /// Everything, and makes and revokes tokens.
    Admin,
}

impl Scope {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::ReleaseManager => "release_manager",
            Self::Admin => "admin",
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    name: String,
    scope: String,
    created_at_ms: i64,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    expires_at_ms: Option<i64>,
    #[serde(default)]
    revoked_at_ms: Option<i64>,
    usable: bool,
    #[serde(default)]
    token: Option<String>,
}

impl Token {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let answer = match &self.command {
            Command::List => operator.list(&["tokens"]).await?,
            Command::Revoke { name } => operator.post(&["tokens", name, "revoke"], &json!({})).await?,
            Command::Create { name, scope, expires_in } => {
                let expires_in_s = expires_in.map(|span| span.as_secs());
                let body = json!({"name": name, "scope": scope.name(), "expires_in_s": expires_in_s});
                operator.post(&["tokens"], &body).await?
            }
        };
        if self.operator.json {
            return print_json(&answer);
        }
        match &self.command {
            Command::List => print(&listed(&read::<Vec<TokenAnswer>>(&answer)?)),
            Command::Revoke { name } => print(&format!("Revoked token {name}; it opens nothing any more.")),
            Command::Create { .. } => {
                let made: TokenAnswer = read(&answer)?;
                print(&format!(
                    "{}\n\nThis is token {} with the scope {}, {}. Keep it now: it is not shown again.",
                    plain(made.token.as_deref().unwrap_or_default()),
                    plain(&made.name),
                    plain(&made.scope),
                    expiry(&made)
                ))
            }
        }
    }
}

fn expiry(token: &TokenAnswer) -> String {
    match token.expires_at_ms {
        Some(at) => format!("valid until {}", moment(Some(at))),
        None => "valid until it is revoked".to_owned(),
    }
}

fn listed(tokens: &[TokenAnswer]) -> String {
    let rows = tokens.iter().map(|token| {
        let state = match (token.usable, token.revoked_at_ms) {
            (true, _) => expiry(token),
            (false, Some(at)) => format!("revoked {}", moment(Some(at))),
            (false, None) => format!("expired {}", moment(token.expires_at_ms)),
        };
        let by = token.created_by.clone().unwrap_or_else(|| "not recorded".to_owned());
        [token.name.clone(), token.scope.clone(), state, moment(Some(token.created_at_ms)), by]
    });
    table(["TOKEN", "SCOPE", "STATE", "MADE", "BY"], rows.collect())
}
