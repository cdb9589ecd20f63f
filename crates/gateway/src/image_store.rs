//! The images that are installed, by their SHA-256, as bases of later deltas: an ECU's bank cannot be read back
//! cheaply over UDS. Bounded; losing it costs full images, never an update.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use farrier_protocol::{EcuId, Sha256, UnixMillis};
use farrier_vehicle_update::Plan;
use serde::{Deserialize, Serialize};

use crate::disk;

/// The folder of the images and their index.
#[derive(Debug, Clone)]
pub(crate) struct ImageStore {
    folder: PathBuf,
    max_bytes: u64,
}

/// The image that an ECU was updated to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Installed {
    version: String,
    sha256: Sha256,
    size_bytes: u64,
    installed_at_ms: i64,
}

/// An image that a delta can start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) path: PathBuf,
    pub(crate) sha256: Sha256,
    pub(crate) size_bytes: u64,
}

type Index = BTreeMap<EcuId, Installed>;

impl ImageStore {
    /// Makes the folder, if it is not there.
    pub(crate) fn new(folder: PathBuf, max_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, max_bytes })
    }

    /// The image of this version, if this ECU was last updated to it.
    pub(crate) fn base(&self, ecu_id: &EcuId, version: &str) -> Option<Base> {
        let installed = self.index().remove(ecu_id).filter(|installed| installed.version == version)?;
        let path = self.image_path(&installed.sha256);
        let is_whole = std::fs::metadata(&path).is_ok_and(|found| found.len() == installed.size_bytes);
        is_whole.then_some(Base { path, sha256: installed.sha256, size_bytes: installed.size_bytes })
    }

    /// Takes over the images of a committed update from where `image_path` says: they are renamed, never copied.
    /// May be repeated after a power cut.
    pub(crate) fn keep(
        &self,
        plan: &Plan,
        now: UnixMillis,
        image_path: impl Fn(&Sha256) -> PathBuf,
    ) -> io::Result<()> {
        let mut index = self.index();
        for package in &plan.start.packages {
            let (from, kept) = (image_path(&package.image_sha256), self.image_path(&package.image_sha256));
            if !kept.exists() && from.exists() && package.image_size_bytes <= self.max_bytes {
                disk::move_durably(&from, &kept)?;
            }
            // What ran before does not run any more, whether there is room for the new image or not.
            index.remove(&package.target_component);
            if kept.exists() {
                let installed = Installed {
                    version: package.target_version.to_string(),
                    sha256: package.image_sha256,
                    size_bytes: package.image_size_bytes,
                    installed_at_ms: now.0,
                };
                index.insert(package.target_component.clone(), installed);
            }
        }
        self.store(self.bounded(index))
    }

    /// These ECUs do not run, or may not run, what was installed last.
    pub(crate) fn forget<'a>(&self, ecus: impl Iterator<Item = &'a EcuId>) -> io::Result<()> {
        let mut index = self.index();
        let known = index.len();
        for ecu_id in ecus {
            index.remove(ecu_id);
        }
        if index.len() == known { Ok(()) } else { self.store(index) }
    }

    fn image_path(&self, sha256: &Sha256) -> PathBuf {
        self.folder.join(format!("{sha256}.image"))
    }

    fn index_path(&self) -> PathBuf {
        self.folder.join("installed.json")
    }

    /// An index that is not there or damaged knows no image.
    fn index(&self) -> Index {
        let read = std::fs::read(self.index_path()).ok();
        let Some(content) = read else { return Index::new() };
        serde_json::from_slice(&content).unwrap_or_else(|error| {
            tracing::warn!(%error, "The index of installed images is damaged; full images will be needed.");
            Index::new()
        })
    }

    /// The images installed last, as many as there is room for.
    fn bounded(&self, index: Index) -> Index {
        let mut newest: Vec<(EcuId, Installed)> = index.into_iter().collect();
        newest.sort_by_key(|(_, installed)| (-installed.installed_at_ms, installed.size_bytes));
        let mut images = BTreeSet::new();
        let mut bytes = 0_u64;
        newest.retain(|(_, installed)| {
            if images.contains(&installed.sha256) {
                return true;
            }
            let with_it = bytes.saturating_add(installed.size_bytes);
            if with_it > self.max_bytes {
                return false;
            }
            images.insert(installed.sha256);
            bytes = with_it;
            true
        });
        newest.into_iter().collect()
    }

    /// Makes the index durable, then deletes the images that it does not name.
    fn store(&self, index: Index) -> io::Result<()> {
        let content = serde_json::to_vec_pretty(&index).map_err(io::Error::other)?;
        disk::replace(&self.index_path(), &content)?;
        let named: BTreeSet<PathBuf> =
            index.values().map(|installed| self.image_path(&installed.sha256)).collect();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if is_image(&path) && !named.contains(&path) {
                disk::remove(&path)?;
            }
        }
        Ok(())
    }
}

fn is_image(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "image")
}

#[cfg(test)]
pub(crate) mod tests {
    use farrier_protocol::{DownloadTransfer, Package, StartDownload, TransferProtocol};

    use super::*;

    /// An update of these ECUs to these contents.
    pub(crate) fn plan(version: &str, contents: &[(&str, &[u8])]) -> Plan {
        let packages = contents.iter().map(|(ecu_id, content)| {
            let hash = Sha256::of(content);
            Package {
                pkg_id: "PKG".parse().unwrap(),
                target_component: ecu_id.parse().unwrap(),
                target_version: version.parse().unwrap(),
                delta_from: None,
                size_bytes: content.len() as u64,
                hash_sha256: hash,
                url: "/p".parse().unwrap(),
                image_sha256: hash,
                image_size_bytes: content.len() as u64,
                hw_part_no: "HW-1".parse().unwrap(),
                install_order: 1,
            }
        });
        let start = StartDownload {
            correlation_id: "VMG_1".parse().unwrap(),
            expires_at_ms: UnixMillis(i64::MAX),
            deadline_s: None,
            update_id: "UPD_1".parse().unwrap(),
            campaign_id: None,
            failure_report: true,
            transfer: DownloadTransfer {
                protocol: TransferProtocol::Https,
                allow_chunking: true,
                max_kb_per_msg: 64,
                base_url: "https://localhost".parse().unwrap(),
            },
            packages: packages.collect(),
            director_targets_version: None,
        };
        Plan::new("SRV_1".parse().unwrap(), UnixMillis(0), start).unwrap()
    }

    struct Bench {
        folder: tempfile::TempDir,
        store: ImageStore,
    }

    impl Bench {
        fn new(max_bytes: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = ImageStore::new(folder.path().join("images"), max_bytes).unwrap();
            Self { folder, store }
        }

        fn install(&self, now: i64, version: &str, contents: &[(&str, &[u8])]) {
            for (_, content) in contents {
                std::fs::write(self.package(&Sha256::of(content)), content).unwrap();
            }
            self.keep(now, version, contents);
        }

        fn keep(&self, now: i64, version: &str, contents: &[(&str, &[u8])]) {
            self.store.keep(&plan(version, contents), UnixMillis(now), |hash| self.package(hash)).unwrap();
        }

        fn package(&self, hash: &Sha256) -> PathBuf {
            self.folder.path().join(hash.to_string())
        }

        fn knows(&self, ecu_id: &str, version: &str) -> bool {
            self.store.base(&ecu_id.parse().unwrap(), version).is_some()
        }

        fn files(&self) -> usize {
            let entries = std::fs::read_dir(self.folder.path().join("images")).unwrap();
            entries.filter(|entry| is_image(&entry.as_ref().unwrap().path())).count()
        }
    }

    #[test]
    fn what_is_installed_is_the_base_until_something_else_is() {
        let bench = Bench::new(1_000);
        bench.install(1, "1.0", &[("a", b"one"), ("b", b"one")]);
        assert!(bench.knows("a", "1.0") && bench.knows("b", "1.0") && !bench.knows("a", "1.1"));
        assert_eq!(bench.files(), 1, "equal contents are kept once");
        bench.install(2, "2.0", &[("a", b"two")]);
        assert!(bench.knows("a", "2.0") && !bench.knows("a", "1.0") && bench.knows("b", "1.0"));
        bench.store.forget([&"a".parse().unwrap()].into_iter()).unwrap();
        assert!(!bench.knows("a", "2.0"));
        assert_eq!(bench.files(), 1, "what nobody runs is deleted");
    }

    #[test]
    fn keeping_may_be_repeated_after_a_power_cut_at_any_point() {
        let bench = Bench::new(1_000);
        bench.install(1, "1.0", &[("a", b"one"), ("b", b"two")]);
        // The images were moved, the index was not written; or all of it was done before.
        for index in [true, false] {
            if index {
                std::fs::remove_file(bench.store.index_path()).unwrap();
            }
            bench.keep(1, "1.0", &[("a", b"one"), ("b", b"two")]);
            assert!(bench.knows("a", "1.0") && bench.knows("b", "1.0"));
        }
    }

    #[test]
    fn the_store_stays_within_its_bound_and_keeps_what_was_installed_last() {
        let bench = Bench::new(10);
        bench.install(1, "1.0", &[("a", b"12345"), ("b", b"1234")]);
        bench.install(2, "1.0", &[("c", b"123456")]);
        assert!(bench.knows("c", "1.0") && bench.knows("b", "1.0") && !bench.knows("a", "1.0"));
        bench.install(3, "1.0", &[("c", b"longer than all there is room for")]);
        assert!(!bench.knows("c", "1.0"), "what ran before is no base of what runs now");
        let none = Bench::new(0);
        none.install(1, "1.0", &[("a", b"one")]);
        assert!(!none.knows("a", "1.0"));
    }

    #[test]
    fn a_damaged_store_knows_nothing_and_goes_on() {
        let bench = Bench::new(1_000);
        bench.install(1, "1.0", &[("a", b"one")]);
        std::fs::write(bench.store.image_path(&Sha256::of(b"one")), b"on").unwrap();
        assert!(!bench.knows("a", "1.0"), "cut off");
        std::fs::write(bench.store.index_path(), b"{").unwrap();
        assert!(!bench.knows("a", "1.0"));
        bench.install(2, "2.0", &[("a", b"two")]);
        assert!(bench.knows("a", "2.0"));
    }
}
