use std::sync::mpsc as std_mpsc;

use super::*;

fn open(dir: &tempfile::TempDir) -> (Store, Arc<Mutex<Vec<Committed>>>) {
    let commits = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&commits);
    let on_commit = move |committed| seen.lock().unwrap().push(committed);
    (Store::open(&dir.path().join("farrier.db"), Box::new(on_commit)).unwrap(), commits)
}

fn add_token(tx: &Tx<'_>, name: &str) -> Result<(), StoreError> {
    let digest = farrier_protocol::Sha256::of(name.as_bytes());
    tokens::add(tx, &digest, name, farrier_protocol::UnixMillis(1))
}

async fn number_of_tokens(store: &Store) -> usize {
    store.read(tokens::all).await.unwrap().len()
}

/// Holds the writer until the guard is dropped, so that what is sent meanwhile shares one commit.
fn hold_writer(store: &Store) -> std_mpsc::Sender<()> {
    let (release, held) = std_mpsc::channel::<()>();
    let store = store.clone();
    let (begun, has_begun) = std_mpsc::channel();
    tokio::spawn(async move {
        let job = move |_: &Tx<'_>| {
            begun.send(()).unwrap();
            // An error means that the guard was dropped.
            let _ = held.recv();
            Ok::<_, StoreError>(())
        };
        // Its own commit is not what is tested.
        let _ = store.write(job).await;
    });
    tokio::task::block_in_place(|| has_begun.recv().unwrap());
    release
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_fails_tells_everybody_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, commits) = open(&dir);
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
    let dir = tempfile::tempdir().unwrap();
    let (store, commits) = open(&dir);
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

#[tokio::test]
async fn closing_does_what_waits_and_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&dir);
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
    let (reopened, _) = open(&dir);
    assert_eq!(number_of_tokens(&reopened).await, done);
}

#[tokio::test]
async fn parameters_are_bound_by_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&dir);
    let read = store.read(|tx| {
        tx.row("SELECT $2, $1, $2", &["one".into(), 2.into()], |row| {
            Ok((row.integer(0)?, row.text(1)?, row.integer(2)?))
        })
    });
    assert_eq!(read.await.unwrap(), Some((2, "one".to_owned(), 2)));
    let too_few = store.read(|tx| tx.row("SELECT $1, $2", &[1.into()], |row| row.integer(0)));
    assert!(too_few.await.is_err());
}

#[tokio::test]
async fn a_store_of_this_version_opens_again_with_all_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&dir);
    store.write(|tx| add_token(tx, "kept")).await.unwrap();
    store.close().await;
    let (store, _) = open(&dir);
    assert_eq!(number_of_tokens(&store).await, 1);
    let steps = store.read(|tx| {
        tx.rows("SELECT number, name FROM schema_step", &[], |row| Ok((row.integer(0)?, row.text(1)?)))
    });
    let expected = [(1, "first_light"), (2, "deltas"), (7, "avoided_deltas")];
    assert_eq!(steps.await.unwrap(), expected.map(|(number, name)| (number, name.to_owned())));
}

#[tokio::test]
async fn a_filled_store_of_the_first_version_is_brought_forward() {
    let dir = tempfile::tempdir().unwrap();
    let digest = farrier_protocol::Sha256::of(b"image");
    let old = Connection::open(dir.path().join("farrier.db")).unwrap();
    old.execute_batch(include_str!("../../migrations/0001_first_light.sql")).unwrap();
    old.execute_batch(&format!(
        "CREATE TABLE schema_step (number BIGINT PRIMARY KEY, name TEXT NOT NULL);
         INSERT INTO schema_step VALUES (1, 'first_light');
         INSERT INTO image VALUES ('{digest}', 5, '3001', 1);
         INSERT INTO release VALUES ('R1', 1);
         INSERT INTO release_image VALUES ('R1', 'HW-1', '1', '{digest}');"
    ))
    .unwrap();
    drop(old);

    let (store, _) = open(&dir);
    let image = store.read(move |tx| releases::image(tx, &digest)).await.unwrap().unwrap();
    assert_eq!((image.size_bytes, image.signature), (5, vec![0x30, 1]));
    let release: farrier_protocol::Text = "R1".parse().unwrap();
    let newer = farrier_campaign::Image {
        hw_part_no: "HW-1".parse().unwrap(),
        version: "2".parse().unwrap(),
        sha256: farrier_protocol::Sha256::of(b"newer"),
        size_bytes: 5,
    };
    store
        .write::<_, StoreError>(move |tx| {
            let at = farrier_protocol::UnixMillis(2);
            let image =
                releases::StoredImage { sha256: newer.sha256, size_bytes: 5, signature: vec![0x30, 2] };
            releases::put_image(tx, &image, at)?;
            let second = farrier_campaign::Release::new(vec![newer]).unwrap();
            releases::create(tx, &"R2".parse().unwrap(), &second, at)?;
            deltas::want_from_newest(tx, &second, 8, at)
        })
        .await
        .unwrap();
    let wanted = store.read(deltas::next_wanted).await.unwrap().unwrap();
    assert_eq!((wanted.from, wanted.compressed_image_bytes), (digest, None));
    assert!(store.read(move |tx| deltas::of_release(tx, &release)).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(&dir);
    store
        .write(|tx| tx.exec("INSERT INTO schema_step (number, name) VALUES (99, 'future')", &[]))
        .await
        .unwrap();
    store.close().await;
    let error = Store::open(&dir.path().join("farrier.db"), Box::new(|_| {})).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 99, expected: 7, .. }), "{error}");
}

#[test]
fn a_store_that_cannot_be_opened_is_named() {
    let error = Store::open(Path::new("/nowhere/farrier.db"), Box::new(|_| {})).err().unwrap();
    assert!(error.to_string().contains("/nowhere/farrier.db"), "{error}");
}
