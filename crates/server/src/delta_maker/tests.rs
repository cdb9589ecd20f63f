use farrier_campaign::{Image, Release};
use farrier_protocol::{MessageType, Package, ServerBody, StartDownload, UpTopic};
use serde_json::json;

use super::*;
use crate::conversation::ServerDesk;
use crate::desk::{FileAnswer, PackageDesk};
use crate::pki::Pki;
use crate::store::deltas::{DeltaState, ReleaseDelta};
use crate::store::releases::{self, StoredImage};
use crate::store::test_database::TestDatabase;
use crate::testbed::{Car, START, World, text};

/// A server with images on its disk, and the maker of its deltas.
struct Workshop {
    world: World,
    dir: tempfile::TempDir,
    pki: Pki,
}

/// Octets without any likeness to those of another seed.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Two images that differ in a few octets.
fn alike() -> (Vec<u8>, Vec<u8>) {
    let old = noise(1, 20_000);
    let mut new = old.clone();
    new.splice(5_000..5_010, *b"something new");
    (old, new)
}

impl Workshop {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::init(&dir.path().join("pki"), false, START).unwrap();
        Self { world: World::new(), dir, pki }
    }

    fn artifacts(&self) -> Artifacts {
        Artifacts::open(&self.dir.path().join("images"), "n").unwrap()
    }

    fn maker(&self) -> DeltaMaker {
        let signature =
            ReleaseSignature::load(Some(&self.pki.release_key()), &self.pki.release_public_key()).unwrap();
        DeltaMaker {
            store: self.world.store.clone(),
            artifacts: self.artifacts(),
            signature: Arc::new(signature),
            settings: self.world.rules.deltas.clone(),
            clock: Arc::new(|| START),
            node: "n".to_owned(),
            wanted: Arc::default(),
        }
    }

    /// Makes all deltas that are wanted; says how many.
    async fn make_all(&self) -> usize {
        let maker = self.maker();
        let mut made = 0;
        while maker.make_next().await.unwrap() {
            made += 1;
        }
        made
    }

    /// A release of one image for HW-1, as the API creates it.
    async fn release(&self, name: &str, version: &str, octets: &[u8]) {
        let (name, version, sha256) = (text(name), text(version), Sha256::of(octets));
        let size_bytes = octets.len() as u64;
        std::fs::write(self.artifacts().path(&sha256), octets).unwrap();
        self.world
            .write(move |tx, rules, now| {
                releases::put_image(tx, &StoredImage { sha256, size_bytes, signature: vec![0x30, 1] }, now)?;
                let image = Image::new(text("HW-1"), version, sha256, size_bytes);
                let release = Release::new(vec![image]).unwrap();
                releases::create(tx, &name, &release, now)?;
                deltas::want_from_newest(tx, &release, rules.deltas.bases_per_image, now)
            })
            .await;
    }

    async fn deltas(&self, release: &str) -> Vec<ReleaseDelta> {
        let release = text(release);
        self.world.read(move |tx| deltas::of_release(tx, &release)).await
    }

    /// The packages that a new car is told to download in campaign C2.
    async fn downloads_of(&self, vehicle: &str) -> StartDownload {
        let car = Car::new(vehicle);
        car.wake_up(&self.world).await;
        car.to_start_download(&self.world).await.1
    }

    async fn served(&self, car: &Car, package: &Package) -> FileAnswer {
        let desk = ServerDesk {
            store: self.world.store.clone(),
            rules: Arc::clone(&self.world.rules),
            artifacts: self.artifacts(),
            clock: Arc::new(|| START),
            grants: crate::conversation::Grants::default(),
            sessions: Arc::default(),
        };
        desk.package(&car.peer, &package.pkg_id, &package.hash_sha256).await.unwrap()
    }
}

/// Versions 1 and 2 that are alike, and a campaign to version 2.
async fn two_releases() -> (Workshop, Vec<u8>, Vec<u8>) {
    let workshop = Workshop::new();
    let (old, new) = alike();
    workshop.release("R1", "1", &old).await;
    workshop.release("R2", "2", &new).await;
    workshop.world.campaign("C2", "R2", None).await;
    (workshop, old, new)
}

#[tokio::test]
async fn a_new_release_gets_a_signed_delta_from_the_one_before_and_vehicles_get_it() {
    let (workshop, old, new) = two_releases().await;
    assert_eq!(workshop.deltas("R2").await[0].state, DeltaState::Pending);
    assert_eq!(workshop.make_all().await, 1);

    let car = Car::new("V1");
    car.wake_up(&workshop.world).await;
    let (_, start) = car.to_start_download(&workshop.world).await;
    for package in &start.packages {
        assert_eq!(package.delta_from, Some(text("1")));
        assert_eq!(package.image_sha256, Sha256::of(&new));
        assert_eq!(package.image_size_bytes, new.len() as u64);
        let FileAnswer::Serve { path, size_bytes, .. } = workshop.served(&car, package).await else {
            panic!("not served")
        };
        let delta = std::fs::read(path).unwrap();
        assert_eq!((delta.len() as u64, Sha256::of(&delta)), (size_bytes, package.hash_sha256));
        assert_eq!(package.size_bytes, size_bytes);
        assert!(delta.len() < 500, "{} octets", delta.len());
        let mut rebuilt = Vec::new();
        DeltaReader::open(Cursor::new(&delta)).unwrap().apply(&mut Cursor::new(&old), &mut rebuilt).unwrap();
        assert_eq!(rebuilt, new);

        let hash = package.hash_sha256;
        let signature = workshop.world.read(move |tx| deltas::signature(tx, &hash)).await.unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &delta);
        let public = ReleaseSignature::load(None, &workshop.pki.release_public_key()).unwrap();
        assert_eq!(public.settle(&digest, Some(signature.clone())), Ok(signature));
    }
}

#[tokio::test]
async fn a_vehicle_does_not_wait_for_a_delta_but_the_next_one_that_runs_the_same_has_it() {
    let workshop = Workshop::new();
    let (old, new) = alike();
    // The newest release before R2 is not what the vehicles run.
    workshop.release("R1", "1", &old).await;
    workshop.release("R1b", "1b", &noise(9, 20_000)).await;
    workshop.release("R2", "2", &new).await;
    workshop.make_all().await;
    assert_eq!(workshop.deltas("R2").await.len(), 1);
    workshop.world.campaign("C2", "R2", None).await;

    let first = workshop.downloads_of("V1").await;
    assert!(first.packages.iter().all(|package| package.delta_from.is_none()));
    let states: Vec<_> =
        workshop.deltas("R2").await.iter().map(|d| (d.from_version.to_string(), d.state)).collect();
    let expected = [("1".to_owned(), DeltaState::Pending), ("1b".to_owned(), DeltaState::NotSmaller)];
    assert_eq!(states, expected);
    assert_eq!(workshop.make_all().await, 1);
    let second = workshop.downloads_of("V2").await;
    assert!(second.packages.iter().all(|package| package.delta_from == Some(text("1"))));
}

#[tokio::test]
async fn a_delta_that_is_not_clearly_smaller_is_measured_but_not_kept() {
    let workshop = Workshop::new();
    workshop.release("R1", "1", &noise(1, 9_000)).await;
    workshop.release("R2", "2", &noise(2, 9_000)).await;
    let files = || std::fs::read_dir(workshop.dir.path().join("images")).unwrap().count();
    let before = files();
    assert_eq!(workshop.make_all().await, 1);
    let delta = workshop.deltas("R2").await.remove(0);
    assert_eq!((delta.state, delta.sha256), (DeltaState::NotSmaller, None));
    assert!(delta.size_bytes > delta.compressed_image_bytes.map(|bytes| bytes * 9 / 10));
    assert_eq!(files(), before);
    workshop.world.campaign("C2", "R2", None).await;
    assert!(workshop.downloads_of("V1").await.packages[0].delta_from.is_none());
}

#[tokio::test]
async fn another_base_is_answered_by_full_images_at_the_question_and_at_the_download() {
    let (workshop, _, new) = two_releases().await;
    workshop.make_all().await;
    let world = &workshop.world;

    // Before the download, one ECU has another base.
    let asked = Car::new("V1");
    asked.wake_up(world).await;
    asked.answer_vci(world).await;
    let question = asked.command(world, MessageType::RequestDownloadReadiness).await;
    let ServerBody::RequestDownloadReadiness(body) = &question.body else { panic!("{question:?}") };
    assert!(body.packages.iter().all(|package| package.delta_from.is_some()));
    let pkg_ids = json!({"pkg_ids": [body.packages[0].pkg_id]});
    asked.fail(world, question.msg_id.as_str(), "DELTA_BASE_MISMATCH", pkg_ids).await;
    assert_eq!(asked.state(world).await, "checking_readiness");
    asked.answer_ready(world).await;
    let command = asked.command(world, MessageType::StartDownload).await;
    let ServerBody::StartDownload(start) = command.body else { panic!("another command") };
    assert_eq!((&start.packages[0].delta_from, start.packages[0].hash_sha256), (&None, Sha256::of(&new)));
    assert_eq!(start.packages[1].delta_from, Some(text("1")));
    assert!(matches!(workshop.served(&asked, &start.packages[0]).await, FileAnswer::Serve { .. }));

    // At the download, all of them.
    let told = Car::new("V2");
    told.wake_up(world).await;
    let (command, deltas) = told.to_start_download(world).await;
    told.fail(world, &command, "DELTA_BASE_MISMATCH", json!({})).await;
    assert!(matches!(workshop.served(&told, &deltas.packages[0]).await, FileAnswer::Gone));
    told.answer_ready(world).await;
    let again = told.command(world, MessageType::StartDownload).await;
    let ServerBody::StartDownload(full) = &again.body else { panic!("another command") };
    for package in &full.packages {
        assert_eq!((&package.delta_from, package.size_bytes), (&None, new.len() as u64));
        assert!(matches!(workshop.served(&told, package).await, FileAnswer::Serve { .. }));
    }
    let result = told.result(again.msg_id.as_str(), "download");
    told.send(world, UpTopic::Result, &result).await;
    assert_eq!(told.state(world).await, "installing");
}

/// A gateway that knows no deltas may say nothing about them and let the deadline pass.
#[tokio::test]
async fn a_delta_that_was_tried_in_vain_is_not_sent_to_that_vehicle_again() {
    let (mut workshop, ..) = two_releases().await;
    assert!(workshop.maker().make_next().await.unwrap());
    let car = Car::new("V1");
    car.wake_up(&workshop.world).await;
    let (_, start) = car.to_start_download(&workshop.world).await;
    assert!(start.packages.iter().all(|package| package.delta_from.is_some()));
    workshop.world.pass(3_600).await;
    car.answer_vci(&workshop.world).await;
    assert_eq!(car.state(&workshop.world).await, "rolled_back");

    workshop.world.campaign("again", "R2", None).await;
    let (_, start) = car.to_start_download(&workshop.world).await;
    assert!(start.packages.iter().all(|package| package.delta_from.is_none()));
    let other = workshop.downloads_of("V2").await;
    assert!(other.packages.iter().all(|package| package.delta_from.is_some()), "others still get it");
}

#[tokio::test]
async fn what_is_wanted_outlives_a_restart_and_what_failed_is_tried_again() {
    let (mut workshop, _, new) = two_releases().await;
    let path = workshop.artifacts().path(&Sha256::of(&new));
    std::fs::write(&path, b"damaged").unwrap();
    assert_eq!(workshop.make_all().await, 1);
    let failed = workshop.deltas("R2").await.remove(0);
    assert_eq!(failed.state, DeltaState::Failed);
    assert!(failed.detail.unwrap().contains("upload the image again"));

    std::fs::write(&path, &new).unwrap();
    workshop.world.restart().await;
    assert_eq!(workshop.make_all().await, 0);
    workshop.world.write(|tx, _, _| deltas::want_failed_again(tx)).await;
    workshop.world.restart().await;
    assert_eq!(workshop.make_all().await, 1);
    assert_eq!(workshop.deltas("R2").await[0].state, DeltaState::Ready);
}

#[tokio::test]
async fn images_beyond_the_limit_are_not_loaded() {
    let (workshop, ..) = two_releases().await;
    let mut maker = workshop.maker();
    maker.settings.largest_image_mib = 0;
    assert!(maker.make_next().await.unwrap());
    let detail = workshop.deltas("R2").await.remove(0).detail.unwrap();
    assert!(detail.contains("deltas.largest_image_mib"), "{detail}");
}

#[tokio::test]
async fn two_images_under_one_version_want_no_delta_by_what_vehicles_run() {
    let workshop = Workshop::new();
    let (old, new) = alike();
    workshop.release("R1", "1", &old).await;
    workshop.release("R1-rebuilt", "1", &noise(3, 20_000)).await;
    workshop.release("R1b", "1b", &noise(9, 20_000)).await;
    workshop.release("R2", "2", &new).await;
    workshop.world.campaign("C2", "R2", None).await;
    workshop.downloads_of("V1").await;
    let from: Vec<_> =
        workshop.deltas("R2").await.iter().map(|delta| delta.from_version.to_string()).collect();
    assert_eq!(from, ["1b"]);
}

#[tokio::test]
async fn the_maker_makes_what_is_wanted_while_it_runs_and_ends_when_the_server_stops() {
    let (workshop, ..) = two_releases().await;
    let (maker, shutdown) = (workshop.maker(), CancellationToken::new());
    let (store, wanted) = (maker.store.clone(), Arc::clone(&maker.wanted));
    let running = tokio::spawn(maker.run(shutdown.clone()));
    let ready = |release: &'static str| {
        let store = store.clone();
        async move {
            while store.read(move |tx| deltas::ready_of_release(tx, &text(release))).await.unwrap().is_empty()
            {
                tokio::task::yield_now().await;
            }
        }
    };
    ready("R2").await;
    let mut newer = alike().1;
    newer[9] ^= 1;
    workshop.release("R3", "3", &newer).await;
    wanted.notify_one();
    ready("R3").await;
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn what_most_plans_would_have_taken_is_made_first() {
    for database in TestDatabase::both() {
        let workshop = Workshop { world: World::on(database), ..Workshop::new() };
        for (name, version) in [("R1", "1"), ("R2", "2"), ("R3", "3")] {
            workshop.release(name, version, version.as_bytes()).await;
        }
        workshop.world.campaign("C2", "R3", None).await;
        // Both its ECUs run 1; the delta from 2 was wanted before, and nobody would have taken it.
        workshop.downloads_of("V1").await;
        let claimed =
            workshop.world.write(|tx, _, now| deltas::claim_next_wanted(tx, "n", now)).await.unwrap();
        assert_eq!((claimed.from, claimed.image), (Sha256::of(b"1"), Sha256::of(b"3")));
    }
}
