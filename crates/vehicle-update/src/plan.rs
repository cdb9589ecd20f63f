//! What an update is to do, as its StartDownload says, checked before anything is fetched.

use std::collections::{BTreeMap, BTreeSet};

use farrier_protocol::{EcuId, ErrorCode, MsgId, Package, PkgId, StartDownload, Text, UnixMillis};
use serde::{Deserialize, Serialize};

/// An accepted StartDownload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Its `msg_id`, which the results answer.
    pub command: MsgId,
    /// When it was accepted, by the gateway's clock.
    pub accepted_at: UnixMillis,
    /// The command.
    pub start: StartDownload,
}

/// A StartDownload that this gateway cannot carry out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// An ECU named more than once.
    #[error("expected one package for each ECU, found several for {ecu_id}; send one image for each ECU")]
    EcuTwice {
        /// The ECU.
        ecu_id: EcuId,
    },
    /// A full image whose hash or size is not that of the package.
    #[error(
        "expected image_sha256 and image_size_bytes of {pkg_id} to be those of the package, as it is a full image, found others"
    )]
    ImageDiffers {
        /// The package.
        pkg_id: PkgId,
    },
    /// One content with two sizes.
    #[error("expected one size for the content {pkg_id} carries, found two; correct the release")]
    SizeDiffers {
        /// The package.
        pkg_id: PkgId,
    },
}

impl Unacceptable {
    /// The code of the ErrorResponse that says so.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::EcuTwice { .. } | Self::ImageDiffers { .. } | Self::SizeDiffers { .. } => {
                ErrorCode::Unsupported
            }
        }
    }
}

impl Plan {
    /// Checks a StartDownload by itself; what the ECUs say is asked in the syncing phase.
    ///
    /// # Errors
    /// A command that this gateway cannot carry out.
    pub fn new(command: MsgId, accepted_at: UnixMillis, start: StartDownload) -> Result<Self, Unacceptable> {
        let mut ecus = BTreeSet::new();
        let mut sizes = BTreeMap::new();
        for package in &start.packages {
            if !ecus.insert(&package.target_component) {
                return Err(Unacceptable::EcuTwice { ecu_id: package.target_component.clone() });
            }
            let content = (package.hash_sha256, package.size_bytes);
            let image = (package.image_sha256, package.image_size_bytes);
            if package.delta_from.is_none() && image != content {
                return Err(Unacceptable::ImageDiffers { pkg_id: package.pkg_id.clone() });
            }
            for (hash, size) in [content, image] {
                if *sizes.entry(hash).or_insert(size) != size {
                    return Err(Unacceptable::SizeDiffers { pkg_id: package.pkg_id.clone() });
                }
            }
        }
        Ok(Self { command, accepted_at, start })
    }

    /// The server's name for this update.
    pub fn update_id(&self) -> &Text {
        &self.start.update_id
    }

    /// The package for an ECU.
    pub fn package(&self, ecu_id: &EcuId) -> Option<&Package> {
        self.start.packages.iter().find(|package| &package.target_component == ecu_id)
    }

    /// The ECUs, each once.
    pub fn ecus(&self) -> impl Iterator<Item = &EcuId> {
        self.start.packages.iter().map(|package| &package.target_component)
    }

    /// Number of ECUs.
    pub fn ecu_count(&self) -> u64 {
        u64::try_from(self.start.packages.len()).unwrap_or(u64::MAX)
    }

    /// Bytes to fetch: packages with equal content travel once.
    pub fn download_bytes(&self) -> u64 {
        let contents: BTreeMap<_, _> =
            self.start.packages.iter().map(|package| (package.hash_sha256, package.size_bytes)).collect();
        contents.values().fold(0, |sum, size| sum.saturating_add(*size))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use farrier_protocol::{DownloadTransfer, Sha256, TransferProtocol};

    use super::*;

    /// A StartDownload for `ecu_1`… with these install orders.
    pub(crate) fn start_download(install_orders: &[u64]) -> StartDownload {
        let packages = install_orders.iter().enumerate().map(|(position, install_order)| {
            let number = position + 1;
            let content = Sha256::of(number.to_string().as_bytes());
            Package {
                pkg_id: format!("PKG_{number}").parse().unwrap(),
                target_component: format!("ecu_{number}").parse().unwrap(),
                target_version: "2.0".parse().unwrap(),
                delta_from: None,
                size_bytes: 100,
                hash_sha256: content,
                url: format!("/v1/packages/PKG_{number}/{content}").parse().unwrap(),
                image_sha256: content,
                image_size_bytes: 100,
                hw_part_no: "HW-1".parse().unwrap(),
                install_order: *install_order,
            }
        });
        StartDownload {
            correlation_id: "VMG_1".parse().unwrap(),
            expires_at_ms: UnixMillis(1_000_000),
            deadline_s: None,
            update_id: "UPD_1".parse().unwrap(),
            campaign_id: None,
            failure_report: true,
            transfer: DownloadTransfer {
                protocol: TransferProtocol::Https,
                allow_chunking: true,
                max_kb_per_msg: 64,
                base_url: "https://localhost:8443".parse().unwrap(),
            },
            packages: packages.collect(),
            director_targets_version: None,
        }
    }

    fn plan(start: StartDownload) -> Result<Plan, Unacceptable> {
        Plan::new("SRV_1".parse().unwrap(), UnixMillis(0), start)
    }

    #[test]
    fn equal_contents_are_fetched_once() {
        let mut start = start_download(&[1, 1, 1]);
        let shared = start.packages[0].hash_sha256;
        start.packages[2].hash_sha256 = shared;
        start.packages[2].image_sha256 = shared;
        let plan = plan(start).unwrap();
        assert_eq!((plan.download_bytes(), plan.ecu_count()), (200, 3));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_its_code() {
        let mut twice = start_download(&[1, 1]);
        twice.packages[1].target_component = "ecu_1".parse().unwrap();
        assert!(matches!(plan(twice), Err(Unacceptable::EcuTwice { .. })));

        let mut other_image = start_download(&[1]);
        other_image.packages[0].image_size_bytes = 99;
        other_image.packages[0].delta_from = Some("1.0".parse().unwrap());
        assert!(
            matches!(plan(other_image.clone()), Err(Unacceptable::SizeDiffers { .. })),
            "one hash, two sizes"
        );
        other_image.packages[0].image_sha256 = Sha256::of(b"rebuilt");
        assert!(plan(other_image.clone()).is_ok(), "a delta rebuilds another image");
        other_image.packages[0].delta_from = None;
        let refusal = plan(other_image).unwrap_err();
        assert!(matches!(refusal, Unacceptable::ImageDiffers { .. }));
        assert_eq!(refusal.code(), ErrorCode::Unsupported);

        let mut two_sizes = start_download(&[1, 1]);
        let shared = two_sizes.packages[0].hash_sha256;
        let second = &mut two_sizes.packages[1];
        (second.hash_sha256, second.image_sha256) = (shared, shared);
        (second.size_bytes, second.image_size_bytes) = (7, 7);
        assert!(matches!(plan(two_sizes), Err(Unacceptable::SizeDiffers { .. })));
    }
}
