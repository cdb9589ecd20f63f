//! Follows the audit log's chain for those who look at it: each entry once, some at a time, by one task at most.

use std::sync::{Arc, Mutex};

use farrier_protocol::UnixMillis;

use crate::api::{Api, Problem};
use crate::audit::{AuditHead, BEFORE_THE_FIRST, ChainCheck};
use crate::store::{audit, locked};

/// Entries that are read at a time.
const AT_A_TIME: u32 = 1_000;

/// How far the chain was followed, and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    /// The last entry up to which it holds.
    pub(super) head: AuditHead,
    /// When the end was reached last.
    pub(super) at: Option<UnixMillis>,
    /// Why the log cannot be believed from there on.
    pub(super) broken: Option<String>,
    pub(super) is_under_way: bool,
}

/// The check of one server; it begins anew when the server starts, or when somebody asks.
pub(super) struct Chain(Mutex<Followed>);

impl Chain {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Followed { head: BEFORE_THE_FIRST, at: None, broken: None, is_under_way: false }))
    }

    /// Forgets what was found, unless a check is under way: then that one goes on.
    pub(super) fn begin_anew(&self) {
        let mut followed = locked(&self.0);
        if !followed.is_under_way {
            *followed = Followed { head: BEFORE_THE_FIRST, at: None, broken: None, is_under_way: false };
        }
    }

    /// How far it is. What has come since is followed: the first entries before this answers, the others behind its back.
    pub(super) async fn look(self: &Arc<Self>, api: &Api) -> Result<Followed, Problem> {
        {
            let mut followed = locked(&self.0);
            if followed.is_under_way || followed.broken.is_some() {
                return Ok(followed.clone());
            }
            followed.is_under_way = true;
        }
        match self.step(api).await {
            Ok(true) => {
                let (chain, api) = (Arc::clone(self), api.clone());
                tokio::spawn(async move {
                    while matches!(chain.step(&api).await, Ok(true)) {}
                    locked(&chain.0).is_under_way = false;
                });
            }
            Ok(false) => locked(&self.0).is_under_way = false,
            Err(problem) => {
                locked(&self.0).is_under_way = false;
                return Err(problem);
            }
        }
        Ok(locked(&self.0).clone())
    }

    /// Follows some entries; says whether there may be more.
    async fn step(&self, api: &Api) -> Result<bool, Problem> {
        let from = locked(&self.0).head;
        let entries = api.read(move |tx| Ok(audit::page(tx, from.seq, AT_A_TIME)?)).await?;
        let mut check = ChainCheck::after(from);
        let mut head = from;
        for entry in &entries {
            if let Err(broken) = check.take(entry) {
                let mut followed = locked(&self.0);
                (followed.head, followed.broken) = (head, Some(format!("{broken}.")));
                tracing::error!(%broken, "The audit log cannot be believed.");
                return Ok(false);
            }
            head = AuditHead { seq: entry.seq, sha256: entry.sha256 };
        }
        let has_more = entries.len() >= AT_A_TIME as usize;
        if has_more {
            locked(&self.0).head = head;
            return Ok(true);
        }
        // Nothing may be missing at the end either; entries that came since the last read are the next look's.
        let end = api.read(|tx| Ok(audit::head(tx)?)).await?;
        let mut followed = locked(&self.0);
        followed.head = head;
        if end.seq < head.seq {
            followed.broken =
                Some(format!("the log ends with entry {}, though entry {} was there.", end.seq, head.seq));
        } else {
            followed.at = Some(api.now());
        }
        Ok(false)
    }
}
