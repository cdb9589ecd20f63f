//! When a delta travels in place of an image.

use farrier_protocol::{Sha256, Text};
use serde::{Deserialize, Serialize};

use crate::release::Image;

/// A delta that is made and signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The hardware of both its images.
    pub hw_part_no: Text,
    /// The version of the image that it starts from.
    pub from_version: Text,
    /// SHA-256 of the image that it rebuilds.
    pub image_sha256: Sha256,
    /// SHA-256 of the delta.
    pub sha256: Sha256,
    /// Bytes of the delta.
    pub size_bytes: u64,
    /// Bytes of the image that it rebuilds, compressed by zstd.
    pub compressed_image_bytes: u64,
}

/// Which deltas are made and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeltaSettings {
    /// A delta is clearly smaller, and so made and sent, if it is at most so many percent of the compressed
    /// image; 0 = no deltas.
    pub at_most_percent: u64,
    /// For how many earlier images deltas to one image are made.
    pub bases_per_image: u64,
    /// The largest image, in MiB, that deltas are made from or to: two images and a quarter are held in memory.
    pub largest_image_mib: u64,
}

impl Default for DeltaSettings {
    fn default() -> Self {
        Self { at_most_percent: 90, bases_per_image: 8, largest_image_mib: 512 }
    }
}

impl DeltaSettings {
    /// Whether a delta of this length is worth its making, beside the compressed image.
    pub fn is_clearly_smaller(&self, delta_bytes: u64, compressed_image_bytes: u64) -> bool {
        let allowed = u128::from(compressed_image_bytes) * u128::from(self.at_most_percent);
        self.at_most_percent > 0 && u128::from(delta_bytes) * 100 <= allowed
    }
}

/// The deltas that a plan may choose from.
#[derive(Debug, Clone, Copy)]
pub struct Deltas<'a> {
    /// Those that are made.
    pub ready: &'a [Delta],
    /// Which of them are sent.
    pub settings: &'a DeltaSettings,
}

impl<'a> Deltas<'a> {
    /// The delta to this image for an ECU that runs `version`, if one is clearly smaller.
    ///
    /// Where two images bore that version, nobody knows which of them the ECU has: then there is none.
    pub(crate) fn to(&self, image: &Image, version: &Text) -> Option<&'a Delta> {
        let mut fitting = self.ready.iter().filter(|delta| {
            delta.hw_part_no == image.hw_part_no
                && delta.image_sha256 == image.sha256
                && delta.from_version == *version
        });
        match (fitting.next(), fitting.next()) {
            (Some(delta), None) => Some(delta).filter(|delta| {
                self.settings.is_clearly_smaller(delta.size_bytes, delta.compressed_image_bytes)
            }),
            (_, _) => None,
        }
    }
}
