//! `farrier user`: who may sign in to the console.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{moment, plain, print, print_json, table};
use crate::token::Scope;

#[derive(Args)]
pub(crate) struct User {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List those who may sign in to the console.
    List,
    /// Invite somebody, or give a user a new link: whoever opens it chooses a password, once, within two days.
    Invite {
        /// Names the user for ever, in the list and in the audit log.
        name: String,
        /// What the user may do; one who is there already keeps the scope that they have.
        #[arg(long, value_enum)]
        scope: Scope,
    },
    /// Give a user another scope.
    Scope {
        /// The user.
        name: String,
        /// What the user may do from now on.
        #[arg(value_enum)]
        scope: Scope,
    },
    /// Sign a user out of all browsers.
    SignOut {
        /// The user.
        name: String,
    },
    /// Let a user sign in no more; the name stays taken.
    Remove {
        /// The user.
        name: String,
    },
    /// Let a user who was removed sign in again.
    Restore {
        /// The user.
        name: String,
    },
}

#[derive(Deserialize)]
struct UserAnswer {
    name: String,
    scope: String,
    created_at_ms: i64,
    created_by: String,
    #[serde(default)]
    disabled_at_ms: Option<i64>,
    sessions: u64,
}

#[derive(Deserialize)]
struct MadeLink {
    name: String,
    scope: String,
    path: String,
    expires_at_ms: i64,
}

impl User {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let answer = match &self.command {
            Command::List => operator.list(&["users"]).await?,
            Command::Invite { name, scope } => {
                operator.post(&["users"], &json!({"name": name, "scope": scope.name()})).await?
            }
            Command::Scope { name, scope } => {
                operator.post(&["users", name, "scope"], &json!({"scope": scope.name()})).await?
            }
            Command::SignOut { name } => operator.post(&["users", name, "sign-out"], &json!({})).await?,
            Command::Remove { name } => operator.post(&["users", name, "disable"], &json!({})).await?,
            Command::Restore { name } => operator.post(&["users", name, "enable"], &json!({})).await?,
        };
        if self.operator.json {
            return print_json(&answer);
        }
        match &self.command {
            Command::List => print(&listed(&read::<Vec<UserAnswer>>(&answer)?)),
            Command::Invite { .. } => {
                let link: MadeLink = read(&answer)?;
                print(&format!(
                    "{}\n\nThis link is for {} with the scope {}, good for one use until {}. Send it by a safe way; it is not shown again.",
                    plain(&operator.address_of(&link.path)),
                    plain(&link.name),
                    plain(&link.scope),
                    moment(Some(link.expires_at_ms))
                ))
            }
            Command::Scope { .. } => {
                let user: UserAnswer = read(&answer)?;
                print(&format!("{} has the scope {} now.", plain(&user.name), plain(&user.scope)))
            }
            Command::SignOut { name } => print(&format!("{} is signed out everywhere.", plain(name))),
            Command::Remove { name } => print(&format!("{} may not sign in any more.", plain(name))),
            Command::Restore { name } => print(&format!("{} may sign in again.", plain(name))),
        }
    }
}

fn listed(users: &[UserAnswer]) -> String {
    let rows = users.iter().map(|user| {
        let state = match user.disabled_at_ms {
            None => "active".to_owned(),
            Some(at) => format!("removed {}", moment(Some(at))),
        };
        let sessions = user.sessions.to_string();
        [
            user.name.clone(),
            user.scope.clone(),
            state,
            sessions,
            moment(Some(user.created_at_ms)),
            user.created_by.clone(),
        ]
    });
    table(["USER", "SCOPE", "STATE", "BROWSERS", "MADE", "BY"], rows.collect())
}
