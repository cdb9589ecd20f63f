//! The server behind the endpoints: messages, commands and packages, each from or into the store.

use std::sync::Arc;

use bytes::Bytes;
use farrier_protocol::{Binding, MsgId, PkgId, Sha256, UnixMillis};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tracing::Instrument;
use tracing::field::Empty;

use super::grants::{Grants, Known, Wanted};
use super::{ReadMessage, Rules, receive, refuse_for_rate};
use crate::SPANS;
use crate::artifacts::Artifacts;
use crate::desk::{
    ClientSession, DeskUnavailable, Download, FileAnswer, Inbound, MessageDesk, PackageDesk, PeerEvent,
    PeerIdentity, PendingCommand, Receipt, WallClock,
};
use crate::measurements;
use crate::mqtt::bindings_of;
use crate::sessions::Sessions;
use crate::store::packages::Grant;
use crate::store::{Store, StoreError, Tx, commands, deltas, packages, releases, security_events, vehicles};

/// What the endpoints speak to.
#[derive(Clone)]
pub(crate) struct ServerDesk {
    pub(crate) store: Store,
    pub(crate) rules: Arc<Rules>,
    pub(crate) artifacts: Artifacts,
    pub(crate) clock: WallClock,
    pub(crate) grants: Grants,
    pub(crate) sessions: Arc<Sessions>,
}

/// Downloads whose progress is noted at a time; messages come in between.
const NOTED_AT_A_TIME: usize = 32;

fn unavailable(error: StoreError) -> DeskUnavailable {
    DeskUnavailable(Box::new(error))
}

impl MessageDesk for ServerDesk {
    async fn receive(&self, inbound: Inbound) -> Result<Receipt, DeskUnavailable> {
        let rules = Arc::clone(&self.rules);
        let (vehicle_id, topic) = (inbound.binding.vehicle_id.clone(), inbound.topic);
        let message = ReadMessage::of(inbound);
        let span = tracing::debug_span!(
            target: SPANS,
            "message taken",
            vehicle = %vehicle_id,
            topic = topic.name(),
            msg_id = message.msg_id().map(tracing::field::display),
            correlation_id = message.correlation_id().map(tracing::field::display),
            verdict = Empty,
        );
        let taken = self.store.write_again_about(&vehicle_id, move |tx| receive(tx, &rules, &message));
        let receipt = taken.instrument(span.clone()).await.map_err(unavailable)?;
        let verdict = measurements::message(topic, receipt);
        span.record("verdict", verdict);
        Ok(receipt)
    }

    async fn refuse_for_rate(&self, inbound: Inbound) -> Result<(), DeskUnavailable> {
        let rules = Arc::clone(&self.rules);
        let vehicle_id = inbound.binding.vehicle_id.clone();
        let message = ReadMessage::of(inbound);
        let stored = self.store.write_about(&vehicle_id, move |tx| refuse_for_rate(tx, &rules, &message));
        stored.await.map_err(unavailable)
    }

    async fn report(
        &self,
        peer: &PeerIdentity,
        event: PeerEvent,
        detail: String,
    ) -> Result<(), DeskUnavailable> {
        let (client_id, now) = (peer.common_name.clone(), (self.clock)());
        let stored = self.store.write(move |tx| {
            let known = vehicles::by_client_id(tx, &client_id)?.map(|vehicle| vehicle.binding);
            // A client that is not enrolled is filed under the first binding that its id can be read as.
            match known.or_else(|| bindings_of(&client_id).next()) {
                Some(binding) => security_events::record(tx, &binding, event.name(), &detail, now),
                None => Ok(()),
            }
        });
        stored.await.map_err(unavailable)
    }

    fn session(&self, session: ClientSession) {
        self.sessions.note(session);
    }

    async fn pending(&self, binding: &Binding, limit: usize) -> Result<Vec<PendingCommand>, DeskUnavailable> {
        let (binding, now) = (binding.clone(), (self.clock)());
        let pending = self.store.read(move |tx| commands::pending(tx, &binding, now, limit));
        Ok(pending.await.map_err(unavailable)?.into_iter().map(sendable).collect())
    }

    async fn delivered(&self, binding: &Binding, msg_id: &MsgId) -> Result<(), DeskUnavailable> {
        let (own, msg_id, now) = (binding.clone(), msg_id.clone(), (self.clock)());
        let vehicle = &binding.vehicle_id;
        let span = tracing::debug_span!(target: SPANS, "command delivered", %vehicle, %msg_id);
        let job = move |tx: &Tx<'_>| commands::delivered(tx, &own, &msg_id, now);
        let delivered = self.store.write_again_about(vehicle, job);
        delivered.instrument(span).await.map_err(unavailable)
    }
}

/// What only the link to a broker asks.
impl ServerDesk {
    /// The undelivered, unexpired commands of a binding, oldest first, at most `limit`, without those that another
    /// server has taken; until `until` they are this server's.
    pub(crate) async fn take_pending(
        &self,
        binding: &Binding,
        until: UnixMillis,
        limit: usize,
    ) -> Result<Vec<PendingCommand>, DeskUnavailable> {
        let (own, now) = (binding.clone(), (self.clock)());
        let job = move |tx: &Tx<'_>| commands::take_pending(tx, &own, now, until, limit);
        let taken = self.store.write_about(&binding.vehicle_id, job).await.map_err(unavailable)?;
        Ok(taken.into_iter().map(sendable).collect())
    }

    /// The broker had nobody to give a command to that it was handed at `asked_at`.
    pub(crate) async fn nobody_listens(
        &self,
        binding: &Binding,
        asked_at: UnixMillis,
    ) -> Result<(), DeskUnavailable> {
        let vehicle_id = binding.vehicle_id.clone();
        let job = move |tx: &Tx<'_>| vehicles::not_at_broker(tx, &vehicle_id, asked_at);
        self.store.write_about(&binding.vehicle_id, job).await.map_err(unavailable)
    }

    /// Vehicles at the broker whose commands became due after one time and up to another, and lie about; by id,
    /// after one, at most `limit`.
    pub(crate) async fn owed(
        &self,
        due: (UnixMillis, UnixMillis),
        after: String,
        limit: usize,
    ) -> Result<Vec<Binding>, DeskUnavailable> {
        let now = (self.clock)();
        self.store.read(move |tx| commands::owed(tx, due, now, &after, limit)).await.map_err(unavailable)
    }
}

fn sendable(command: commands::Pending) -> PendingCommand {
    PendingCommand {
        msg_id: command.msg_id,
        payload: Bytes::from(command.payload),
        expires_at: Some(command.expires_at),
    }
}

impl ServerDesk {
    /// Reads what the vehicle may do with the package.
    async fn grant(&self, wanted: &Wanted) -> Result<Grant, DeskUnavailable> {
        let now = (self.clock)();
        let beginning = match self.grants.look_up(wanted, now) {
            Ok((size_bytes, limit)) => return Ok(Grant::Open { size_bytes, until: now, limit }),
            Err(beginning) => beginning,
        };
        let asked = wanted.clone();
        let grant = self.store.read(move |tx| {
            let Some(vehicle_id) = packages::bound_vehicle(tx, &asked.peer)? else {
                return Ok(Grant::OfOthers);
            };
            packages::grant(tx, &vehicle_id, &asked.pkg_id, &asked.hash, now)
        });
        let grant = grant.await.map_err(unavailable)?;
        if let Grant::Open { size_bytes, until, limit } = &grant {
            let known = Known { size_bytes: *size_bytes, until: *until, limit: limit.clone(), beginning };
            self.grants.remember(wanted, known);
        }
        Ok(grant)
    }
}

impl PackageDesk for ServerDesk {
    async fn package(
        &self,
        peer: &PeerIdentity,
        pkg_id: &PkgId,
        hash: &Sha256,
    ) -> Result<FileAnswer, DeskUnavailable> {
        let wanted = Wanted { peer: peer.clone(), pkg_id: pkg_id.clone(), hash: *hash };
        Ok(match self.grant(&wanted).await? {
            Grant::Open { size_bytes, limit, .. } => {
                FileAnswer::Serve { path: self.artifacts.path(hash), size_bytes, limit }
            }
            Grant::Over => FileAnswer::Gone,
            Grant::OfOthers => FileAnswer::Forbidden,
            Grant::Unknown => FileAnswer::Unknown,
        })
    }

    async fn signature(
        &self,
        peer: &PeerIdentity,
        pkg_id: &PkgId,
        hash: &Sha256,
    ) -> Result<FileAnswer, DeskUnavailable> {
        match self.package(peer, pkg_id, hash).await? {
            FileAnswer::Serve { .. } => {}
            other @ (FileAnswer::Signature(_)
            | FileAnswer::Forbidden
            | FileAnswer::Gone
            | FileAnswer::Unknown) => return Ok(other),
        }
        let digest = *hash;
        let signature = self.store.read(move |tx| match releases::image(tx, &digest)? {
            Some(image) => Ok(Some(image.signature)),
            None => deltas::signature(tx, &digest),
        });
        let signature = signature.await.map_err(unavailable)?;
        Ok(signature.map_or(FileAnswer::Unknown, FileAnswer::Signature))
    }

    async fn downloading(&self, downloads: Vec<Download>) -> Result<Vec<bool>, DeskUnavailable> {
        let now = (self.clock)();
        let noted = downloads.into_iter().map(|download| {
            self.store.write(move |tx| match packages::bound_vehicle(tx, &download.peer)? {
                Some(vehicle_id) => {
                    vehicles::lock(tx, &vehicle_id)?;
                    packages::served(tx, &vehicle_id, &download, now)
                }
                None => Ok(false),
            })
        });
        stream::iter(noted).buffered(NOTED_AT_A_TIME).map_err(unavailable).try_collect().await
    }
}
