//! Whether the bases of deltas are here: the ECU runs that version, and its image is in the store.

use std::time::Duration;

use farrier_protocol::{
    EcuId, ErrorCode, ErrorResponse, LongText, MsgId, PkgId, RequestDownloadReadiness, StartDownload, Text,
    VehicleBody,
};
use futures_util::future::join_all;

use super::{Agent, GatewayFailure, TaskResult};
use crate::ecu_link::EcuLinks;
use crate::image_store::ImageStore;

/// How long an ECU may take to say what it runs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command with deltas.
#[derive(Debug)]
pub(super) enum WithDeltas {
    Readiness(RequestDownloadReadiness),
    Start(StartDownload),
}

/// What came of comparing.
#[derive(Debug)]
pub(super) struct Compared {
    command: MsgId,
    request: WithDeltas,
    /// The packages whose base is not here.
    mismatched: Vec<PkgId>,
}

/// A delta and what it begins with.
#[derive(Debug, Clone)]
struct Delta {
    pkg_id: PkgId,
    ecu_id: EcuId,
    from: Text,
}

impl WithDeltas {
    fn deltas(&self) -> Vec<Delta> {
        let delta = |pkg_id: &PkgId, ecu_id: &EcuId, from: &Option<Text>| {
            let (pkg_id, ecu_id) = (pkg_id.clone(), ecu_id.clone());
            from.clone().map(|from| Delta { pkg_id, ecu_id, from })
        };
        match self {
            Self::Readiness(request) => request
                .packages
                .iter()
                .filter_map(|package| delta(&package.pkg_id, &package.target_component, &package.delta_from))
                .collect(),
            Self::Start(start) => start
                .packages
                .iter()
                .filter_map(|package| delta(&package.pkg_id, &package.target_component, &package.delta_from))
                .collect(),
        }
    }
}

impl Agent {
    /// Asks the ECUs of deltas what they run, then goes on with the command.
    pub(super) async fn compare_bases(
        &mut self,
        command: MsgId,
        request: WithDeltas,
    ) -> Result<(), GatewayFailure> {
        let deltas = request.deltas();
        if deltas.is_empty() {
            return self.go_on(Compared { command, request, mismatched: Vec::new() }).await;
        }
        if let WithDeltas::Start(start) = &request {
            self.comparing.insert(start.update_id.clone(), command.clone());
        }
        let (links, images, results) = (self.links.clone(), self.images.clone(), self.results.clone());
        self.tasks.spawn(async move {
            let compared = deltas.iter().map(|delta| is_here(&links, &images, delta));
            let is_here = join_all(compared).await;
            let mismatched = deltas.iter().zip(is_here).filter(|(_, is_here)| !is_here);
            let mismatched = mismatched.map(|(delta, _)| delta.pkg_id.clone()).collect();
            let compared = Compared { command, request, mismatched };
            results.send(TaskResult::BasesCompared(Box::new(compared))).await.ok();
        });
        Ok(())
    }

    pub(super) async fn bases_compared(&mut self, compared: Compared) -> Result<(), GatewayFailure> {
        if let WithDeltas::Start(start) = &compared.request
            && self.comparing.remove(&start.update_id).is_none()
        {
            // It was cancelled meanwhile, and is answered.
            return Ok(());
        }
        self.go_on(compared).await
    }

    async fn go_on(&mut self, compared: Compared) -> Result<(), GatewayFailure> {
        let Compared { command, request, mismatched } = compared;
        if !mismatched.is_empty() {
            let detail =
                "an ECU does not run what the delta begins with, or its image is not kept; send full images";
            let body = VehicleBody::ErrorResponse(ErrorResponse {
                correlation_id: command,
                code: ErrorCode::DeltaBaseMismatch,
                detail: LongText::beginning_of(detail),
                failed_ecus: None,
                pkg_ids: Some(mismatched),
                retry_after_s: None,
            });
            return self.send(body).await;
        }
        match request {
            WithDeltas::Readiness(request) => self.judge_readiness(&command, &request).await,
            WithDeltas::Start(start) => self.start_update(command, start).await,
        }
    }

    /// What the images that deltas rebuild need on disk, as far as that is known before they are announced: about
    /// as much as their bases.
    pub(super) fn rebuilt_bytes(&self, request: &RequestDownloadReadiness) -> u64 {
        let bases = request.packages.iter().filter_map(|package| {
            self.images.base(&package.target_component, package.delta_from.as_ref()?.as_str())
        });
        bases.fold(0, |sum, base| sum.saturating_add(base.size_bytes))
    }
}

async fn is_here(links: &EcuLinks, images: &ImageStore, delta: &Delta) -> bool {
    if images.base(&delta.ecu_id, delta.from.as_str()).is_none() {
        return false;
    }
    let running = tokio::time::timeout(PATIENCE, links.running(&delta.ecu_id)).await;
    matches!(running, Ok(Ok(running)) if running.version == delta.from.as_str())
}
