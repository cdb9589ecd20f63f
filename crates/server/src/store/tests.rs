use std::sync::mpsc as std_mpsc;

use super::test_database::TestDatabase;
use super::*;

mod again;
mod operators;
mod verified;

fn open(database: &TestDatabase) -> (Store, Arc<Mutex<Vec<Committed>>>) {
    let commits = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&commits);
    let on_commit = move |committed| seen.lock().unwrap().push(committed);
    (database.open(Arc::new(on_commit)), commits)
}

pub(super) fn add_token(tx: &Tx<'_>, name: &str) -> Result<(), StoreError> {
    let digest = farrier_protocol::Sha256::of(name.as_bytes());
    let token = tokens::Token {
        name: name.to_owned(),
        scope: crate::access::Scope::Viewer,
        created_at: farrier_protocol::UnixMillis(1),
        created_by: None,
        expires_at: None,
        revoked_at: None,
    };
    tokens::add(tx, &digest, &token)
}

async fn number_of_tokens(store: &Store) -> usize {
    store.read(|tx| tokens::page(tx, "", 1_000)).await.unwrap().len()
}

/// Holds the writer until the guard is dropped, so that what is sent meanwhile shares one commit.
fn hold_writer(store: &Store) -> std_mpsc::Sender<()> {
    hold_writer_by(store, false)
}

/// The same by a job that may be run again, or by one that may not.
fn hold_writer_by(store: &Store, may_run_again: bool) -> std_mpsc::Sender<()> {
    let (release, held) = std_mpsc::channel::<()>();
    let store = store.clone();
    let (begun, has_begun) = std_mpsc::channel();
    tokio::spawn(async move {
        let job = move |_: &Tx<'_>| {
            // An error means that it is run again.
            let _ = begun.send(());
            // An error means that the guard was dropped.
            let _ = held.recv();
            Ok::<_, StoreError>(())
        };
        let vehicle_id: VehicleId = "HOLDER".parse().unwrap();
        // Its own commit is not what is tested.
        let _ = match may_run_again {
            true => store.write_again_about(&vehicle_id, job).await,
            false => store.write(job).await,
        };
    });
    tokio::task::block_in_place(|| has_begun.recv().unwrap());
    release
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_tells_everybody_and_keeps_nothing() {
    let database = TestDatabase::sqlite();
    let (store, commits) = open(&database);
    store
        .write(|tx| {
            tx.exec(
                "CREATE TABLE child (parent TEXT REFERENCES operator_token (sha256) DEFERRABLE INITIALLY DEFERRED)",
                &[],
            )
        })
        .await
        .unwrap();
    commits.lock().unwrap().clear();

    let guard = hold_writer(&store);
    let good = store.write(|tx| add_token(tx, "good"));
    // Only the commit finds out that there is no such parent.
    let bad = store.write(|tx| tx.exec("INSERT INTO child (parent) VALUES ('none')", &[]).map(|_| ()));
    let release = async {
        tokio::task::yield_now().await;
        drop(guard);
    };
    let (good, bad, ()) = tokio::join!(good, bad, release);
    assert!(matches!(good, Err(StoreError::NotCommitted)), "{good:?}");
    assert!(matches!(bad, Err(StoreError::NotCommitted)), "{bad:?}");
    assert_eq!(number_of_tokens(&store).await, 0);
    assert!(commits.lock().unwrap().is_empty(), "nobody is woken for what is not durable");

    store.write(|tx| add_token(tx, "later")).await.unwrap();
    assert_eq!(number_of_tokens(&store).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_undoes_only_itself() {
    let database = TestDatabase::sqlite();
    let (store, commits) = open(&database);
    let guard = hold_writer(&store);
    let binding = Binding { vehicle_id: "V".parse().unwrap(), gateway_id: "G".parse().unwrap() };
    let woken = binding.clone();
    let good = store.write(move |tx| {
        tx.wake(&woken);
        add_token(tx, "good")
    });
    let bad = store.write(move |tx| {
        tx.due_changed();
        add_token(tx, "bad")?;
        add_token(tx, "bad")
    });
    let release = async {
        tokio::task::yield_now().await;
        drop(guard);
    };
    let (good, bad, ()) = tokio::join!(good, bad, release);
    good.unwrap();
    assert!(matches!(bad, Err(StoreError::Statement(_))), "{bad:?}");
    assert_eq!(number_of_tokens(&store).await, 1);
    let commits = commits.lock().unwrap();
    assert!(commits.iter().any(|committed| committed.wake.contains(&binding)));
    assert!(!commits.iter().any(|committed| committed.due_changed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_on_postgresql_changes_nothing_and_the_next_one_does() {
    let database = TestDatabase::postgres();
    let (store, commits) = open(&database);
    let failed = store.write(|tx| {
        tx.due_changed();
        add_token(tx, "twice")?;
        add_token(tx, "twice")
    });
    assert!(matches!(failed.await, Err(StoreError::PostgresStatement(_))));
    // A job that makes light of a failed statement does not get its other changes through.
    let swallowed = store.write(|tx| {
        add_token(tx, "once")?;
        assert!(add_token(tx, "once").is_err());
        Ok::<_, StoreError>(())
    });
    assert!(matches!(swallowed.await, Err(StoreError::NotCommitted)));
    assert_eq!(number_of_tokens(&store).await, 0);
    assert!(commits.lock().unwrap().is_empty());
    store.write(|tx| add_token(tx, "later")).await.unwrap();
    assert_eq!(number_of_tokens(&store).await, 1);
}

#[tokio::test]
async fn closing_does_what_waits_and_takes_nothing_more() {
    for database in TestDatabase::both() {
        let (store, _) = open(&database);
        let waiting: Vec<_> = (0..100)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { store.write(move |tx| add_token(tx, &number.to_string())).await })
            })
            .collect();
        tokio::task::yield_now().await;
        store.close().await;
        let mut done = 0;
        for job in waiting {
            done += usize::from(job.await.unwrap().is_ok());
        }
        assert!(matches!(store.write(|tx| add_token(tx, "late")).await, Err(StoreError::NotCommitted)));
        let (reopened, _) = open(&database);
        assert_eq!(number_of_tokens(&reopened).await, done);
        assert!(!store.failed().is_cancelled(), "closing is no failure");
    }
}

#[tokio::test]
async fn parameters_are_bound_by_their_numbers() {
    for database in TestDatabase::both() {
        let (store, _) = open(&database);
        let read = store.read(|tx| {
            let sql = "SELECT CAST($2 AS BIGINT), CAST($1 AS TEXT), CAST($2 AS BIGINT)";
            tx.row(sql, &["one".into(), 2.into()], |row| Ok((row.integer(0)?, row.text(1)?, row.integer(2)?)))
        });
        assert_eq!(read.await.unwrap(), Some((2, "one".to_owned(), 2)));
        let too_few = store.read(|tx| {
            tx.row("SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT)", &[1.into()], |row| row.integer(0))
        });
        assert!(too_few.await.is_err());
    }
}

#[tokio::test]
async fn a_text_with_a_nul_is_stored_by_both_databases() {
    for database in TestDatabase::both() {
        let (store, _) = open(&database);
        store.write(|tx| add_token(tx, "a\0b")).await.unwrap();
        assert_eq!(number_of_tokens(&store).await, 1);
    }
}

#[tokio::test]
async fn a_store_of_this_version_opens_again_with_all_that_is_in_it() {
    for database in TestDatabase::both() {
        let (store, _) = open(&database);
        store.write(|tx| add_token(tx, "kept")).await.unwrap();
        store.close().await;
        let (store, _) = open(&database);
        assert_eq!(number_of_tokens(&store).await, 1);
        let steps = store.read(|tx| {
            tx.rows("SELECT number, name FROM schema_step ORDER BY number", &[], |row| {
                Ok((row.integer(0)?, row.text(1)?))
            })
        });
        let expected: Vec<_> =
            migrations::STEPS.iter().map(|(number, name, _)| (*number, (*name).to_owned())).collect();
        assert_eq!(steps.await.unwrap(), expected);
    }
}

#[tokio::test]
async fn inventories_of_an_older_store_are_brought_forward() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farrier.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../migrations/0001_first_light.sql")).unwrap();
    old.execute_batch(
        "CREATE TABLE schema_step (number BIGINT PRIMARY KEY, name TEXT NOT NULL);
         INSERT INTO schema_step VALUES (1, 'first_light');
         INSERT INTO vehicle (vehicle_id, gateway_id, client_id, enrolled_at, enrolled_by, recent_reboots, vci)
         VALUES ('V1', 'G', 'V1_G', 1, 'wakeup', '[]', '{\"kept\":1}'), ('V2', 'G', 'V2_G', 1, 'wakeup', '[]', NULL);",
    )
    .unwrap();
    drop(old);
    let store = Store::open(&StoreAddress::Sqlite(path), Arc::new(|_| {})).unwrap();
    let kept = store.read(|tx| {
        tx.rows("SELECT vehicle_id, vci FROM vehicle_inventory", &[], |row| Ok((row.text(0)?, row.text(1)?)))
    });
    assert_eq!(kept.await.unwrap(), [("V1".to_owned(), "{\"kept\":1}".to_owned())]);
    let vehicle = store.read(|tx| vehicles::by_id(tx, &"V2".parse().unwrap())).await.unwrap();
    assert!(vehicle.is_some(), "the vehicles themselves are still there");
}

#[tokio::test]
async fn servers_that_start_at_once_on_one_database_migrate_it_once() {
    let database = TestDatabase::postgres();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| database.open(Arc::new(|_| {})));
        }
    });
    let (store, _) = open(&database);
    assert_eq!(number_of_tokens(&store).await, 0);
}

#[tokio::test]
async fn a_filled_store_of_schema_2_is_brought_forward_on_both_databases() {
    let first = include_str!("../../migrations/0001_first_light.sql");
    let second = include_str!("../../migrations/0002_deltas.sql");
    let filled = include_str!("tests/filled_schema_2.sql");
    let seen = "CREATE TABLE schema_step (number BIGINT PRIMARY KEY, name TEXT NOT NULL);
                INSERT INTO schema_step VALUES (1, 'first_light'), (2, 'deltas');";
    for database in TestDatabase::both() {
        database.run([first, second, seen, filled].join("\n"));
        let (store, _) = open(&database);
        let checks = store.read(verify::all).await.unwrap();
        assert!(checks.iter().all(|check| check.wrong == 0), "{checks:#?}");
        let looked_at = |name: &str| checks.iter().find(|check| check.name == name).unwrap().looked_at;
        assert_eq!((looked_at("vehicles"), looked_at("vehicle updates"), looked_at("releases")), (3, 3, 1));
        let states = store.read(|tx| {
            let sql = "SELECT state, due_at, updated_at FROM vehicle_update ORDER BY vehicle_id";
            tx.rows(sql, &[], |row| Ok((row.text(0)?, row.optional_time(1)?, row.time(2)?)))
        });
        let states = states.await.unwrap();
        assert_eq!(
            states.iter().map(|(state, ..)| state.as_str()).collect::<Vec<_>>(),
            ["downloading", "waiting", "downloading"]
        );
        assert_eq!(states[1].1, Some(states[1].2), "a silent vehicle is asked again now");
        assert!(states[0].1.is_some());
        let release = store.read(|tx| releases::by_name(tx, &"C2".parse().unwrap())).await.unwrap().unwrap();
        let [image] = release.release.images() else { panic!("{release:?}") };
        assert_eq!((image.hw_part_no.as_str(), image.version.as_str()), ("HW-1", "2"));
        assert_eq!((&image.supplier, &image.region), (&None, &None));
        store.write(|tx| add_token(tx, "new")).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_left_alone() {
    for database in TestDatabase::both() {
        let (store, _) = open(&database);
        store
            .write(|tx| tx.exec("INSERT INTO schema_step (number, name) VALUES (99, 'future')", &[]))
            .await
            .unwrap();
        store.close().await;
        let error = Store::open(&database.address(), Arc::new(|_| {})).err().unwrap();
        assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    }
}

#[test]
fn a_store_that_cannot_be_opened_is_named() {
    let file = StoreAddress::Sqlite("/nowhere/farrier.db".into());
    let error = Store::open(&file, Arc::new(|_| {})).err().unwrap();
    assert!(error.to_string().contains("/nowhere/farrier.db"), "{error}");
    // Nobody listens on port 1.
    let database =
        StoreAddress::Postgres(Box::new("postgres://u:geheim@127.0.0.1:1/farrier".parse().unwrap()));
    let error = Store::open(&database, Arc::new(|_| {})).err().unwrap().to_string();
    assert!(error.contains("127.0.0.1:1/farrier") && !error.contains("geheim"), "{error}");
}
