//! A release: the images that belong together, one per hardware part number.

use farrier_protocol::{Sha256, Text};

/// One ECU hardware's file in a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The hardware that the image is for.
    pub hw_part_no: Text,
    /// The software version that an ECU with this image reports.
    pub version: Text,
    /// SHA-256 of the image.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub size_bytes: u64,
}

/// The images that belong together; at most one per hardware part number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    images: Vec<Image>,
}

/// Why images do not make a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRelease {
    /// Nothing in it.
    #[error("expected at least one image in a release, found none; add one")]
    Empty,
    /// Two images for one hardware.
    #[error("expected one image per hardware part number, found two for {hw_part_no}; remove one of them")]
    HardwareTwice {
        /// The hardware in question.
        hw_part_no: Text,
    },
}

impl Release {
    /// Puts images together, if there is at least one and no hardware has two.
    pub fn new(images: Vec<Image>) -> Result<Self, InvalidRelease> {
        if images.is_empty() {
            return Err(InvalidRelease::Empty);
        }
        let mut seen = std::collections::BTreeSet::new();
        for image in &images {
            if !seen.insert(&image.hw_part_no) {
                return Err(InvalidRelease::HardwareTwice { hw_part_no: image.hw_part_no.clone() });
            }
        }
        Ok(Self { images })
    }

    /// The images, in the order in which they were named.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// The image for this hardware.
    pub fn image_for(&self, hw_part_no: &Text) -> Option<&Image> {
        self.images.iter().find(|image| image.hw_part_no == *hw_part_no)
    }
}
