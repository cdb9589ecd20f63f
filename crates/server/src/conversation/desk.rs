//! The server behind the endpoints: messages, commands and packages, each from or into the store.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use farrier_protocol::{Binding, MsgId, PkgId, Sha256, VehicleId};

use super::{Rules, receive};
use crate::artifacts::Artifacts;
use crate::desk::{
    DeskUnavailable, FileAnswer, Inbound, MessageDesk, PackageDesk, PeerIdentity, PendingCommand, Receipt,
    WallClock,
};
use crate::measurements;
use crate::store::packages::Grant;
use crate::store::{Store, StoreError, Tx, commands, deltas, packages, releases, vehicles};

/// What the endpoints speak to.
#[derive(Clone)]
pub(crate) struct ServerDesk {
    pub(crate) store: Store,
    pub(crate) rules: Arc<Rules>,
    pub(crate) artifacts: Artifacts,
    pub(crate) clock: WallClock,
}

fn unavailable(error: StoreError) -> DeskUnavailable {
    DeskUnavailable(Box::new(error))
}

impl MessageDesk for ServerDesk {
    async fn receive(&self, inbound: Inbound) -> Result<Receipt, DeskUnavailable> {
        let rules = Arc::clone(&self.rules);
        let (vehicle_id, topic) = (inbound.binding.vehicle_id.clone(), inbound.topic);
        let taken = self.store.write_about(&vehicle_id, move |tx| receive(tx, &rules, &inbound));
        let receipt = taken.await.map_err(unavailable)?;
        measurements::message(topic, receipt);
        Ok(receipt)
    }

    async fn pending(&self, binding: &Binding, limit: usize) -> Result<Vec<PendingCommand>, DeskUnavailable> {
        let (binding, now) = (binding.clone(), (self.clock)());
        let pending = self.store.read(move |tx| commands::pending(tx, &binding, now, limit));
        let sendable = |command: commands::Pending| PendingCommand {
            msg_id: command.msg_id,
            payload: Bytes::from(command.payload),
            expires_at: Some(command.expires_at),
        };
        Ok(pending.await.map_err(unavailable)?.into_iter().map(sendable).collect())
    }

    async fn delivered(&self, binding: &Binding, msg_id: &MsgId) -> Result<(), DeskUnavailable> {
        let (own, msg_id, now) = (binding.clone(), msg_id.clone(), (self.clock)());
        let job = move |tx: &Tx<'_>| commands::delivered(tx, &own, &msg_id, now);
        let delivered = self.store.write_about(&binding.vehicle_id, job);
        delivered.await.map_err(unavailable)
    }
}

/// What a vehicle asks for.
struct Wanted {
    peer: PeerIdentity,
    pkg_id: PkgId,
    hash: Sha256,
}

impl ServerDesk {
    /// Answers with `serve` if the vehicle may have the package.
    async fn answer(
        &self,
        peer: &PeerIdentity,
        pkg_id: &PkgId,
        hash: &Sha256,
        serve: impl FnOnce(&Tx<'_>, u64) -> Result<FileAnswer, StoreError> + Send + 'static,
    ) -> Result<FileAnswer, DeskUnavailable> {
        let wanted = Wanted { peer: peer.clone(), pkg_id: pkg_id.clone(), hash: *hash };
        let now = (self.clock)();
        let answer = self.store.read(move |tx| {
            let Some(vehicle_id) = bound_vehicle(tx, &wanted.peer)? else { return Ok(FileAnswer::Forbidden) };
            match packages::grant(tx, &vehicle_id, &wanted.pkg_id, &wanted.hash, now)? {
                Grant::Open { size_bytes } => serve(tx, size_bytes),
                Grant::Over => Ok(FileAnswer::Gone),
                Grant::OfOthers => Ok(FileAnswer::Forbidden),
                Grant::Unknown => Ok(FileAnswer::Unknown),
            }
        });
        answer.await.map_err(unavailable)
    }
}

/// The vehicle whose binding this certificate is.
fn bound_vehicle(tx: &Tx<'_>, peer: &PeerIdentity) -> Result<Option<VehicleId>, StoreError> {
    let vehicle = vehicles::by_client_id(tx, &peer.common_name)?;
    let bound = vehicle.filter(|vehicle| vehicle.thumbprint.as_ref() == Some(&peer.thumbprint));
    Ok(bound.map(|vehicle| vehicle.binding.vehicle_id))
}

impl PackageDesk for ServerDesk {
    async fn package(
        &self,
        peer: &PeerIdentity,
        pkg_id: &PkgId,
        hash: &Sha256,
    ) -> Result<FileAnswer, DeskUnavailable> {
        let path: PathBuf = self.artifacts.path(hash);
        self.answer(peer, pkg_id, hash, |_, size_bytes| Ok(FileAnswer::Serve { path, size_bytes })).await
    }

    async fn signature(
        &self,
        peer: &PeerIdentity,
        pkg_id: &PkgId,
        hash: &Sha256,
    ) -> Result<FileAnswer, DeskUnavailable> {
        let digest = *hash;
        self.answer(peer, pkg_id, hash, move |tx, _| {
            let signature = match releases::image(tx, &digest)? {
                Some(image) => Some(image.signature),
                None => deltas::signature(tx, &digest)?,
            };
            Ok(signature.map_or(FileAnswer::Unknown, FileAnswer::Signature))
        })
        .await
    }

    fn served(&self, peer: &PeerIdentity, pkg_id: &PkgId, up_to_byte: u64) {
        let (desk, peer, pkg_id) = (self.clone(), peer.clone(), pkg_id.clone());
        let now = (self.clock)();
        tokio::spawn(async move {
            let noted = desk.store.write(move |tx| match bound_vehicle(tx, &peer)? {
                Some(vehicle_id) => {
                    vehicles::lock(tx, &vehicle_id)?;
                    packages::served(tx, &vehicle_id, &pkg_id, up_to_byte, now)
                }
                None => Ok(()),
            });
            // Progress is for people's eyes: without it nothing else goes wrong.
            if let Err(error) = noted.await {
                tracing::debug!(%error, "The progress of a download was not noted.");
            }
        });
    }
}
