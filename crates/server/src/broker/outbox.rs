//! What goes to the broker: the undelivered commands of vehicles that are there, each with its expiry. A command that
//! nobody listens for stays in the store until its vehicle wakes up.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use farrier_protocol::{Binding, Topics, UnixMillis};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{PubAckReason, PublishProperties};
use rumqttc::{AsyncClient, PublishNoticeError, PublishOptions, PublishResult};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Ended;
use crate::conversation::ServerDesk;
use crate::desk::{DeskUnavailable, MessageDesk, PendingCommand};
use crate::mqtt::seconds_until;

/// Vehicles whose commands are published at a time.
const VEHICLES_AT_A_TIME: usize = 64;
/// Commands of one vehicle that are taken at a time.
const COMMANDS_AT_A_TIME: usize = 16;
/// For how long, in ms, other servers leave a command to the one that took it.
const TAKEN_FOR_MS: i64 = 15_000;
/// How often the store is searched for commands that lie about: their server went before it had handed them over.
const SEARCH: Duration = Duration::from_secs(2);
/// A command that became due no longer ago than this, in ms, is its own server's to hand over.
const FRESH_MS: i64 = 3_000;
/// How far the search goes back, in ms. The first search of a connection goes back to the beginning.
const SEARCHED_MS: i64 = 300_000;
/// Vehicles that one search finds at a time.
const FOUND_AT_A_TIME: usize = 512;
/// How long the broker may take to acknowledge a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Vehicles for which a command was queued.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    waiting: Mutex<BTreeSet<Binding>>,
    more: Notify,
}

impl Wakes {
    /// Commands for this vehicle are to be looked for; does not block.
    pub(crate) fn wake(&self, binding: Binding) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(binding);
        self.more.notify_one();
    }

    /// One that is not under way already.
    fn next(&self, under_way: &HashSet<Binding>) -> Option<Binding> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let next = waiting.iter().find(|binding| !under_way.contains(*binding)).cloned()?;
        waiting.take(&next)
    }
}

/// Publishes until the connection cannot be used any more.
pub(super) async fn publish_all(
    desk: &ServerDesk,
    topics: &Topics,
    wakes: &Wakes,
    client: &AsyncClient,
) -> Ended {
    let mut under_way = HashSet::new();
    let mut publishing = FuturesUnordered::new();
    let mut searching = interval(SEARCH);
    searching.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since = UnixMillis(0);
    loop {
        while publishing.len() < VEHICLES_AT_A_TIME
            && let Some(binding) = wakes.next(&under_way)
        {
            under_way.insert(binding.clone());
            publishing.push(publish_commands(desk, topics, client, binding));
        }
        let went_on = tokio::select! {
            Some((binding, published)) = publishing.next() => {
                under_way.remove(&binding);
                published
            }
            () = wakes.more.notified() => Ok(()),
            _ = searching.tick() => match search(desk, wakes, since).await {
                Ok(()) => {
                    since = earlier((desk.clock)(), SEARCHED_MS);
                    Ok(())
                }
                Err(error) => Err(Ended::from(error)),
            },
        };
        if let Err(ended) = went_on {
            return ended;
        }
    }
}

fn earlier(now: UnixMillis, by_ms: i64) -> UnixMillis {
    UnixMillis(now.0.saturating_sub(by_ms))
}

/// Finds commands that lie about.
async fn search(desk: &ServerDesk, wakes: &Wakes, since: UnixMillis) -> Result<(), DeskUnavailable> {
    let until = earlier((desk.clock)(), FRESH_MS);
    let mut after = String::new();
    loop {
        let found = desk.owed((since, until), after, FOUND_AT_A_TIME).await?;
        let is_last = found.len() < FOUND_AT_A_TIME;
        after = found.last().map(|binding| binding.vehicle_id.to_string()).unwrap_or_default();
        found.into_iter().for_each(|binding| wakes.wake(binding));
        if is_last {
            return Ok(());
        }
    }
}

/// The commands of one vehicle, oldest first; ends with the first that nobody listens for.
async fn publish_commands(
    desk: &ServerDesk,
    topics: &Topics,
    client: &AsyncClient,
    binding: Binding,
) -> (Binding, Result<(), Ended>) {
    let published = async {
        loop {
            let until = earlier((desk.clock)(), -TAKEN_FOR_MS);
            let commands = desk.take_pending(&binding, until, COMMANDS_AT_A_TIME).await?;
            let is_last = commands.len() < COMMANDS_AT_A_TIME;
            for command in commands {
                if !publish(desk, topics, client, &binding, command).await? {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    };
    let published = published.await;
    (binding, published)
}

/// Whether the next one may follow.
async fn publish(
    desk: &ServerDesk,
    topics: &Topics,
    client: &AsyncClient,
    binding: &Binding,
    command: PendingCommand,
) -> Result<bool, Ended> {
    let asked_at = (desk.clock)();
    let expiry_s = command.expires_at.map(|end| seconds_until(end, asked_at));
    let properties = PublishProperties { message_expiry_interval: expiry_s, ..PublishProperties::default() };
    let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
    let notice = client.publish_tracked(topics.down(binding), command.payload, options).await?;
    let answer = timeout(ANSWER_TIMEOUT, notice.wait_async()).await.map_err(|_| Ended::NoAnswer)?;
    let reason = match answer {
        Ok(PublishResult::Qos1(ack)) => ack.reason,
        Err(PublishNoticeError::V5PubAck(reason)) => reason,
        Ok(
            PublishResult::Qos0Flushed
            | PublishResult::Qos2Completed(_)
            | PublishResult::Qos2PubRecRejected(_),
        ) => return Err(Ended::NoAnswer),
        Err(error) => return Err(Ended::NotPublished(error)),
    };
    match reason {
        PubAckReason::Success => {
            desk.delivered(binding, &command.msg_id).await?;
            Ok(true)
        }
        PubAckReason::NoMatchingSubscribers => {
            desk.nobody_listens(binding, asked_at).await?;
            Ok(false)
        }
        PubAckReason::QuotaExceeded
        | PubAckReason::UnspecifiedError
        | PubAckReason::ImplementationSpecificError
        | PubAckReason::NotAuthorized
        | PubAckReason::TopicNameInvalid
        | PubAckReason::PacketIdentifierInUse
        | PubAckReason::PayloadFormatInvalid => {
            tracing::error!(
                vehicle = %binding.vehicle_id, msg_id = %command.msg_id, ?reason,
                "The broker refuses a command; check the broker's access rules and limits for this server."
            );
            Ok(false)
        }
    }
}
