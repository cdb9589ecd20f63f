//! Webhooks: what changed, sent to addresses that operators name, signed, and tried again until it arrives.
//! Owns when and how something is sent; what is to be delivered stands in the store.

mod address;
mod secret;
mod sender;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use farrier_protocol::{Text, UnixMillis};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use address::Target;
pub(crate) use secret::Secret;
pub(crate) use sender::Sender;

use crate::desk::WallClock;
use crate::measurements;
use crate::store::audit::{self, Actor, Change};
use crate::store::webhooks::{self, Delivery, DeliveryState, LastAttempt, Webhook};
use crate::store::{Store, StoreError};

/// Attempts at a time for one webhook, so that a slow receiver holds up nobody else.
const AT_ONCE: usize = 4;
/// How long no other server tries what this one is at; longer than any attempt, in ms.
const CLAIM_MS: i64 = 60_000;
/// The first pause before another attempt, in ms; each is four times the one before.
const FIRST_PAUSE_MS: i64 = 5_000;
/// The longest pause, in ms.
const LONGEST_PAUSE_MS: i64 = 3_600_000;
/// How often it is looked what is due.
const LOOK: Duration = Duration::from_secs(1);
/// How often what was delivered long ago is forgotten.
const TIDY: Duration = Duration::from_secs(60);
/// For attempts under way, once the server stops; what is cut is sent again.
const DRAIN: Duration = Duration::from_secs(3);

/// What webhooks may do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSettings {
    /// The roots (PEM) that receivers' certificates must lead to; by default what this machine trusts.
    pub roots: Option<PathBuf>,
    /// Also send by http, where everybody on the way can read it.
    pub allow_insecure_http: bool,
    /// Also send to loopback, private and link-local addresses, which an operator could so make the server reach.
    pub allow_private_targets: bool,
}

/// Delivers while the server runs.
pub(crate) struct Deliverer {
    pub(crate) store: Store,
    pub(crate) sender: Arc<Sender>,
    pub(crate) clock: WallClock,
    pub(crate) to_deliver: Arc<Notify>,
}

impl Deliverer {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut attempts = JoinSet::new();
        let mut under_way: BTreeMap<Text, usize> = BTreeMap::new();
        let mut tidied = Instant::now();
        while !shutdown.is_cancelled() {
            if let Err(error) = self.begin(&mut attempts, &mut under_way).await {
                tracing::error!(
                    error = &error as &dyn Error,
                    "Webhooks could not be looked at; it is tried again."
                );
            }
            if tidied.elapsed() >= TIDY {
                tidied = Instant::now();
                if let Err(error) = self.forget().await {
                    tracing::warn!(error = &error as &dyn Error, "Old deliveries could not be forgotten.");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.to_deliver.notified() => {}
                () = sleep(LOOK) => {}
                Some(ended) = attempts.join_next() => note_end(&mut under_way, ended),
            }
        }
        let rest = async { while attempts.join_next().await.is_some() {} };
        if timeout(DRAIN, rest).await.is_err() {
            tracing::info!("Deliveries under way were cut; they are sent again.");
        }
        attempts.shutdown().await;
    }

    /// Begins what is due, as far as there is room.
    async fn begin(
        &self,
        attempts: &mut JoinSet<Text>,
        under_way: &mut BTreeMap<Text, usize>,
    ) -> Result<(), StoreError> {
        while let Some(ended) = attempts.try_join_next() {
            note_end(under_way, ended);
        }
        for webhook in self.with_due().await? {
            let free = AT_ONCE.saturating_sub(under_way.get(&webhook.name).copied().unwrap_or(0));
            if free == 0 {
                continue;
            }
            for delivery in self.claim(&webhook, free).await? {
                let (one, webhook) = (self.one(), webhook.clone());
                *under_way.entry(webhook.name.clone()).or_default() += 1;
                attempts.spawn(async move {
                    one.deliver(&webhook, &delivery).await;
                    webhook.name
                });
            }
        }
        Ok(())
    }

    async fn with_due(&self) -> Result<Vec<Webhook>, StoreError> {
        let now = (self.clock)();
        let read = self.store.read(move |tx| {
            let mut due = Vec::new();
            for webhook in webhooks::enabled(tx)? {
                if webhooks::has_due(tx, &webhook.name, now)? {
                    due.push(webhook);
                }
            }
            Ok(due)
        });
        read.await
    }

    async fn claim(&self, webhook: &Webhook, most: usize) -> Result<Vec<Delivery>, StoreError> {
        let (name, now) = (webhook.name.clone(), (self.clock)());
        let until = UnixMillis(now.0.saturating_add(CLAIM_MS));
        self.store.write(move |tx| webhooks::claim(tx, &name, most, now, until)).await
    }

    async fn forget(&self) -> Result<(), StoreError> {
        let names = self.store.read(|tx| webhooks::page(tx, "", u32::MAX)).await?;
        for webhook in names {
            self.store.write(move |tx| webhooks::forget(tx, &webhook.name)).await?;
        }
        Ok(())
    }

    fn one(&self) -> Attempt {
        Attempt {
            store: self.store.clone(),
            sender: Arc::clone(&self.sender),
            clock: Arc::clone(&self.clock),
        }
    }

    /// Tries once all that is due, one after the other.
    #[cfg(test)]
    pub(crate) async fn deliver_due(&self) -> usize {
        let mut tried = 0;
        for webhook in self.with_due().await.unwrap() {
            for delivery in self.claim(&webhook, 100).await.unwrap() {
                self.one().deliver(&webhook, &delivery).await;
                tried += 1;
            }
        }
        tried
    }
}

fn note_end(under_way: &mut BTreeMap<Text, usize>, ended: Result<Text, tokio::task::JoinError>) {
    match ended {
        Ok(name) => {
            let left = under_way.remove(&name).unwrap_or(0).saturating_sub(1);
            if left > 0 {
                under_way.insert(name, left);
            }
        }
        Err(error) => tracing::error!(%error, "A delivery ended by a panic."),
    }
}

/// What one attempt works with.
struct Attempt {
    store: Store,
    sender: Arc<Sender>,
    clock: WallClock,
}

impl Attempt {
    /// Sends one delivery and writes what came of it.
    async fn deliver(&self, webhook: &Webhook, delivery: &Delivery) {
        let (at, began) = ((self.clock)(), Instant::now());
        let answer = self.sender.send(webhook, delivery, at).await;
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (status, outcome, response) = match answer {
            Ok(answer) => (Some(answer.status), answer.outcome(), Some(answer.excerpt)),
            Err(error) => (None, error.to_string(), None),
        };
        let now = (self.clock)();
        let (state, next_at) = verdict(status, delivery, now, jitter());
        measurements::webhook_attempt(match state {
            DeliveryState::Delivered => "delivered",
            DeliveryState::Failed => "failed",
            DeliveryState::Waiting => "again",
        });
        tracing::debug!(webhook = %webhook.name, event = delivery.event_id, duration_ms, outcome, "A webhook was tried.");
        let attempt = LastAttempt { at, duration_ms, status, outcome, response };
        let (name, id, kind) = (webhook.name.clone(), delivery.id.clone(), delivery.kind.clone());
        let written = self.store.write(move |tx| {
            webhooks::attempted(tx, &id, &attempt, state, next_at)?;
            if status == Some(GONE) {
                let because = "its receiver answered 410 Gone";
                if let Some(before) = webhooks::by_name(tx, &name)?
                    && webhooks::disable(tx, &name, because, now)?
                {
                    tracing::error!(webhook = %name, "A webhook was disabled: {because}.");
                    let after = webhooks::by_name(tx, &name)?;
                    let change = Change {
                        action: "webhook.disabled",
                        object: format!("webhook/{name}"),
                        detail: Some(because.to_owned()),
                        before: Some(before.audited()),
                        after: after.as_ref().map(Webhook::audited),
                    };
                    audit::record(tx, &Actor::server(), change, now)?;
                }
            } else if state == DeliveryState::Failed {
                tracing::error!(webhook = %name, kind, "A change could not be delivered to a webhook and is given up.");
            }
            Ok(())
        });
        if let Err(error) = written.await {
            let error: StoreError = error;
            tracing::error!(
                error = &error as &dyn Error,
                "What came of a delivery could not be written; it is sent again."
            );
        }
    }
}

const GONE: u16 = 410;

/// What becomes of a delivery after an attempt. `jitter` is 0 to 1.
fn verdict(
    status: Option<u16>,
    delivery: &Delivery,
    now: UnixMillis,
    jitter: f64,
) -> (DeliveryState, Option<UnixMillis>) {
    match status {
        Some(200..=299) => (DeliveryState::Delivered, None),
        Some(GONE) => (DeliveryState::Failed, None),
        Some(_) | None => {
            let next = UnixMillis(now.0.saturating_add(pause_ms(delivery.attempts, jitter)));
            if next.0 >= delivery.give_up_at.0 {
                (DeliveryState::Failed, None)
            } else {
                (DeliveryState::Waiting, Some(next))
            }
        }
    }
}

/// The pause after so many attempts before the one that failed, three quarters to five quarters of its length.
fn pause_ms(attempts: u64, jitter: f64) -> i64 {
    let doubled = u32::try_from(attempts.saturating_mul(2)).unwrap_or(u32::MAX).min(20);
    let pause = FIRST_PAUSE_MS.saturating_mul(1_i64 << doubled).min(LONGEST_PAUSE_MS);
    (pause as f64 * (0.75 + jitter.clamp(0.0, 1.0) / 2.0)) as i64
}

/// 0 to 1, so that what failed together does not come again together.
fn jitter() -> f64 {
    let mut octet = [0_u8; 1];
    match aws_lc_rs::rand::fill(&mut octet) {
        Ok(()) => f64::from(octet[0]) / 255.0,
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests;
