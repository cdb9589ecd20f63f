//! Several servers on one PostgreSQL database.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farrier_protocol::{Thumbprint, UnixMillis};

use super::test_database::TestDatabase;
use super::*;
use crate::testbed::{Car, START, World, text};

fn open(database: &TestDatabase) -> Store {
    database.open(Arc::new(|_| {}))
}

/// A world on PostgreSQL, and another server's store on the same database.
fn two_servers() -> (World, Store) {
    let world = World::on(TestDatabase::postgres());
    let other = world.another_store();
    (world, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_servers_that_change_a_vehicle_each_sees_what_the_other_has_done() {
    let (world, other) = two_servers();
    let car = Car::known(&world, "V1").await;
    let id = car.binding.vehicle_id.clone();
    // Reads, thinks, writes: without the lock one would overwrite what the other has written.
    let increment = |store: Store| {
        let id = id.clone();
        async move {
            for _ in 0..50 {
                let own = id.clone();
                let job = move |tx: &Tx<'_>| {
                    let skew = vehicles::by_id(tx, &own)?.unwrap().clock_skew_ms.unwrap();
                    std::thread::yield_now();
                    vehicles::heard(tx, &own, vehicles::Heard { at: START, clock_skew_ms: skew + 1 })
                };
                store.write_about::<_, StoreError>(&id, job).await.unwrap();
            }
        }
    };
    let before = car.vehicle(&world).await.unwrap().clock_skew_ms.unwrap();
    let (first, second) = (increment(world.store.clone()), increment(other));
    let (first, second) = (tokio::spawn(first), tokio::spawn(second));
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(car.vehicle(&world).await.unwrap().clock_skew_ms, Some(before + 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vehicle_that_two_servers_hear_from_first_is_enrolled_once() {
    let (world, other) = two_servers();
    for number in 0..20 {
        let binding =
            Binding { vehicle_id: format!("V{number}").parse().unwrap(), gateway_id: "G".parse().unwrap() };
        let enrol = |store: &Store| {
            let (store, binding) = (store.clone(), binding.clone());
            tokio::spawn(async move {
                let own = binding.clone();
                let job = move |tx: &Tx<'_>| {
                    let is_new = vehicles::by_id(tx, &own.vehicle_id)?.is_none();
                    if is_new {
                        vehicles::enrol(tx, &own, vehicles::EnrolledBy::ItsWakeUp, START)?;
                    }
                    Ok::<_, StoreError>(is_new)
                };
                store.write_about(&binding.vehicle_id, job).await.unwrap()
            })
        };
        let (first, second) = (enrol(&world.store), enrol(&other));
        assert_eq!([first.await.unwrap(), second.await.unwrap()].into_iter().filter(|new| *new).count(), 1);
    }
}

#[tokio::test]
async fn jobs_about_one_vehicle_are_done_in_the_order_in_which_they_came() {
    let (world, _) = two_servers();
    let done: Arc<Mutex<Vec<usize>>> = Arc::default();
    let id: VehicleId = "V".parse().unwrap();
    let jobs = (0..50).map(|number| {
        let done = Arc::clone(&done);
        world.store.write_about::<_, StoreError>(&id, move |_| {
            locked(&done).push(number);
            Ok(())
        })
    });
    futures_util::future::try_join_all(jobs).await.unwrap();
    assert_eq!(*locked(&done), (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_due_is_claimed_by_one_server_and_left_by_the_other() {
    let (mut world, other) = two_servers();
    world.campaign_for_all().await;
    for number in 0..40 {
        Car::new(&format!("V{number}")).wake_up(&world).await;
    }
    world.now = START.plus_seconds(30);
    let now = world.now;
    let (claimed, wait) = std::sync::mpsc::channel::<()>();
    let (is_claimed, has_claimed) = tokio::sync::oneshot::channel();
    let holder = world.store.clone();
    let held = tokio::spawn(async move {
        let job = move |tx: &Tx<'_>| {
            let ids = updates::claim_due(tx, now, 25)?;
            is_claimed.send(ids.len()).unwrap();
            // Until the other server has looked.
            wait.recv().unwrap();
            Ok::<_, StoreError>(ids)
        };
        holder.write(job).await.unwrap()
    });
    assert_eq!(has_claimed.await.unwrap(), 25);
    let rest: Vec<String> =
        other.write::<_, StoreError>(move |tx| updates::claim_due(tx, now, 100)).await.unwrap();
    claimed.send(()).unwrap();
    let first = held.await.unwrap();
    assert_eq!(rest.len(), 15);
    assert!(rest.iter().all(|id| !first.contains(id)));
}

#[tokio::test]
async fn a_delta_is_made_by_one_server_and_by_another_when_that_one_has_gone() {
    let (world, other) = two_servers();
    world.release("R1", "1").await;
    world
        .write(|tx, _, now| {
            let release = releases::by_name(tx, &"R1".parse().unwrap())?.unwrap().release;
            let from = farrier_protocol::Sha256::of(b"earlier");
            let image = releases::StoredImage { sha256: from, size_bytes: 1_000, signature: vec![0x30, 1] };
            releases::put_image(tx, &image, now)?;
            tx.exec(
                "INSERT INTO delta (from_sha256, image_sha256, state, wanted_at) VALUES ($1, $2, 'pending', $3)",
                &[(&from.to_string()).into(), (&release.images()[0].sha256.to_string()).into(), now.into()],
            )?;
            nodes::enter(tx, "a", "run-a", now)
        })
        .await;
    let claim = |store: &Store, node: &'static str, now: UnixMillis| {
        let store = store.clone();
        async move { store.write(move |tx| deltas::claim_next_wanted(tx, node, now)).await.unwrap().is_some() }
    };
    assert!(claim(&world.store, "a", START).await);
    assert!(!claim(&other, "b", START).await, "a is alive and at it");
    assert!(claim(&world.store, "a", START).await, "what was begun before a restart is begun again");
    assert!(claim(&other, "b", START.plus_seconds(16)).await, "a has gone");
}

#[tokio::test]
async fn a_vehicle_is_there_while_any_server_that_is_alive_has_it() {
    let (world, other) = two_servers();
    let car = Car::known(&world, "V1").await;
    let binding = car.binding.clone();
    let is_there = |now: UnixMillis| {
        let binding = binding.clone();
        world.read(move |tx| nodes::is_present(tx, &binding, now))
    };
    let client_id = binding.client_id();
    let tell = |node: &'static str, there: bool| {
        let client_id = client_id.clone();
        other.write::<_, StoreError>(move |tx| nodes::set_presence(tx, node, &client_id, there))
    };
    for node in ["a", "b"] {
        other.write::<_, StoreError>(move |tx| nodes::enter(tx, node, "run", START)).await.unwrap();
    }
    assert!(!is_there(START).await);
    tell("a", true).await.unwrap();
    assert!(is_there(START).await);
    // It comes to b before a has noticed that it went.
    tell("b", true).await.unwrap();
    tell("a", false).await.unwrap();
    assert!(is_there(START).await);
    assert!(is_there(START.plus_seconds(14)).await);
    assert!(!is_there(START.plus_seconds(15)).await, "b has not been heard of for 15 s");
    let alive = |run: &'static str, at: u64| {
        other.write::<_, StoreError>(move |tx| nodes::is_alive(tx, "b", run, START.plus_seconds(at)))
    };
    assert_eq!(alive("run", 20).await.unwrap(), nodes::Place::Kept);
    assert!(is_there(START.plus_seconds(20)).await, "b was only slow");
    assert_eq!(alive("another run", 21).await.unwrap(), nodes::Place::Lost);
    other.write::<_, StoreError>(|tx| nodes::forget_gone(tx, START.plus_seconds(1_000))).await.unwrap();
    assert_eq!(alive("run", 1_000).await.unwrap(), nodes::Place::New);
    assert!(!is_there(START.plus_seconds(1_000)).await);
    other.write::<_, StoreError>(|tx| nodes::leave(tx, "b", "run")).await.unwrap();
    assert_eq!(alive("another run", 1_001).await.unwrap(), nodes::Place::New);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_wakes_the_vehicles_that_are_connected_to_another() {
    let (world, other) = two_servers();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    other.on_notice(move |notice| heard.send(notice).unwrap()).unwrap();
    let bindings: Vec<Binding> = (0..500)
        .map(|number| Binding {
            vehicle_id: format!("VEHICLE_{number}").parse().unwrap(),
            gateway_id: "GATEWAY".parse().unwrap(),
        })
        .collect();
    let mut missing: BTreeSet<Binding> = bindings.iter().cloned().collect();
    // The listener connects on its own; until it has, what is told is lost, as when its connection breaks.
    while !missing.is_empty() {
        let told = bindings.clone();
        world.write(move |tx, _, _| nodes::tell_to_wake(tx, &told)).await;
        while let Ok(Some(notice)) = tokio::time::timeout(Duration::from_millis(300), hears.recv()).await {
            let Notice::Wake(binding) = notice else { panic!("{notice:?}") };
            missing.remove(&binding);
        }
    }
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_tells_the_others_whose_connections_end_after_a_re_binding() {
    let (world, other) = two_servers();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    other.on_notice(move |notice| heard.send(notice).unwrap()).unwrap();
    let car = Car::known(&world, "V1").await;
    let (earlier, kept) = (car.binding.clone(), Thumbprint::of_certificate(b"another"));
    // The listener connects on its own; until it has, what is told is lost.
    let notice = loop {
        let before = car.vehicle(&world).await.unwrap();
        let (binding, kept, reason) = (car.binding.clone(), kept.clone(), text("repair"));
        world
            .write(move |tx, _, now| vehicles::rebind(tx, &before, &binding, Some(&kept), &reason, now))
            .await;
        let heard = tokio::time::timeout(Duration::from_millis(300), hears.recv()).await;
        if let Ok(Some(notice @ Notice::Cut(_))) = heard {
            break notice;
        }
    };
    assert_eq!(notice, Notice::Cut(EarlierBinding { binding: earlier, kept: Some(kept) }));
    other.close().await;
}

#[tokio::test]
async fn of_a_notification_that_cannot_be_read_what_can_be_is_done() {
    let notices: Vec<_> =
        nodes::notices_of("V1/G1\n\nno binding\nV 2/G\n!V4/G4/\n!V5/G5/no thumbprint\n!V6\nV3/G3\n")
            .collect();
    let binding =
        |v: &str, g: &str| Binding { vehicle_id: v.parse().unwrap(), gateway_id: g.parse().unwrap() };
    let expected = [
        Notice::Wake(binding("V1", "G1")),
        Notice::Cut(EarlierBinding { binding: binding("V4", "G4"), kept: None }),
        Notice::Wake(binding("V3", "G3")),
    ];
    assert_eq!(notices, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_postgresql_ends_are_made_again() {
    let database = TestDatabase::postgres();
    let store = open(&database);
    let writes = AtomicUsize::new(0);
    let write = async || {
        let number = writes.fetch_add(1, Ordering::Relaxed).to_string();
        store.write(move |tx| tests::add_token(tx, &number)).await
    };
    for _ in 0..16 {
        write().await.unwrap();
    }
    database.end_connections();
    for _ in 0..16 {
        write().await.unwrap();
    }
    assert_eq!(store.read(|tx| tokens::page(tx, "", 1_000)).await.unwrap().len(), 32);
    assert!(!store.failed().is_cancelled());
}

#[tokio::test]
async fn a_connection_that_breaks_within_a_job_changes_nothing_and_the_next_job_does() {
    let database = TestDatabase::postgres();
    let store = open(&database);
    let cut = store.write(|tx| {
        tests::add_token(tx, "cut")?;
        tx.rows("SELECT 1 FROM pg_terminate_backend(pg_backend_pid())", &[], |_| Ok(()))
    });
    let error = cut.await.unwrap_err();
    assert!(matches!(error, StoreError::ConnectionLost(_)), "{error:?}");
    for _ in 0..16 {
        let none = store.read(|tx| tokens::page(tx, "", 1_000)).await.unwrap();
        assert!(none.is_empty());
    }
    store.write(|tx| tests::add_token(tx, "later")).await.unwrap();
    assert_eq!(store.read(|tx| tokens::page(tx, "", 1_000)).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_jobs_that_wait_for_each_other_one_is_undone_and_told_to_try_again() {
    let database = TestDatabase::postgres();
    let store = open(&database);
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let crossing = |first: &'static str, second: &'static str| {
        let (store, barrier) = (store.clone(), Arc::clone(&barrier));
        tokio::spawn(async move {
            let job = move |tx: &Tx<'_>| {
                tests::add_token(tx, first)?;
                tx.lock(first)?;
                barrier.wait();
                tx.lock(second)
            };
            store.write::<_, StoreError>(job).await
        })
    };
    let ends = [crossing("a", "b"), crossing("b", "a")];
    let mut conflicts = 0;
    for end in ends {
        match end.await.unwrap() {
            Ok(()) => {}
            Err(StoreError::Conflict(_)) => conflicts += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(conflicts, 1);
    assert_eq!(store.read(|tx| tokens::page(tx, "", 1_000)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn postgresql_is_spoken_to_over_tls_only_if_its_certificate_is_the_right_one() {
    let database = TestDatabase::postgres();
    let authority = std::env::var("FARRIER_TEST_POSTGRES_CA").expect(
        "this test needs FARRIER_TEST_POSTGRES_CA: the authority of the test server's certificate, as ./scripts/test sets it",
    );
    let with = |host: &str, authority: &str| {
        let url = database.url().unwrap().replace("127.0.0.1", host);
        let address = format!("{url}?sslmode=verify-full&sslrootcert={authority}");
        Store::open(&StoreAddress::Postgres(Box::new(address.parse().unwrap())), Arc::new(|_| {}))
    };
    let store = with("localhost", &authority).unwrap();
    let is_encrypted = store.read(|tx| {
        let sql = "SELECT CAST(COUNT(*) AS BIGINT) FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl AND version = 'TLSv1.3'";
        tx.row::<i64>(sql, &[], |row| row.integer(0))
    });
    assert_eq!(is_encrypted.await.unwrap(), Some(1));
    // The certificate is for localhost.
    assert!(matches!(with("127.0.0.1", &authority).err(), Some(StoreError::Connect { .. })));
    let other = tempfile::NamedTempFile::new().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    std::fs::write(other.path(), certificate.pem()).unwrap();
    assert!(matches!(
        with("localhost", other.path().to_str().unwrap()).err(),
        Some(StoreError::Connect { .. })
    ));
    assert!(matches!(with("localhost", "/nowhere.pem").err(), Some(StoreError::Certificates { .. })));
}
