use farrier_protocol::UnixMillis;
use rusqlite::Connection;

use super::*;
use crate::audit::{ChainCheck, check_data_folder};

fn change(number: u64) -> audit::Change {
    audit::Change {
        action: "campaign.started",
        object: format!("campaign/{number}"),
        detail: None,
        before: None,
        after: Some(serde_json::json!(number)),
    }
}

/// Appends from several jobs at once, of which one in five fails after it has appended.
async fn append(stores: &[Store], entries: u64) {
    let append = |number: u64| {
        let store = stores[usize::try_from(number).unwrap() % stores.len()].clone();
        async move {
            store
                .write(move |tx| {
                    audit::record(tx, &audit::Actor::server(), change(number), UnixMillis(1))?;
                    if number.is_multiple_of(5) { Err(StoreError::NotCommitted) } else { Ok(()) }
                })
                .await
        }
    };
    let appended = futures_util::future::join_all((0..entries).map(append)).await;
    let kept = appended.iter().filter(|result| result.is_ok()).count();
    assert_eq!(u64::try_from(kept).unwrap(), entries * 4 / 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_is_one_chain_whoever_appends_and_whatever_fails() {
    for database in TestDatabase::both() {
        let mut stores = vec![open(&database).0];
        if database.url().is_some() {
            // As of another server.
            stores.push(open(&database).0);
        }
        append(&stores, 50).await;
        let (entries, head) = stores[0]
            .read(|tx| Ok::<_, StoreError>((audit::page(tx, 0, 100)?, audit::head(tx)?)))
            .await
            .unwrap();
        let mut check = ChainCheck::new(vec![head]);
        entries.iter().try_for_each(|entry| check.take(entry)).unwrap();
        assert_eq!((check.end(), head.seq), (Ok(head), 40));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_end_was_cut_off_is_found_by_its_stored_end_and_by_a_noted_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farrier.db");
    let store = Store::open(&StoreAddress::Sqlite(path.clone()), Arc::new(|_| {})).unwrap();
    append(std::slice::from_ref(&store), 50).await;
    let head = check_data_folder(dir.path(), Vec::new()).unwrap();
    assert_eq!(head.seq, 40);
    store.close().await;

    let tamper = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let why = || {
        let error = check_data_folder(dir.path(), Vec::new()).unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    };
    tamper("DELETE FROM audit_entry WHERE seq = 40");
    assert!(why().contains("entry 40 was there"), "{}", why());
    // The end as the store has it is cut as well: only a head that was noted elsewhere tells.
    tamper("UPDATE audit_head SET seq = 39, sha256 = (SELECT sha256 FROM audit_entry WHERE seq = 39)");
    assert_eq!(check_data_folder(dir.path(), Vec::new()).unwrap().seq, 39);
    std::fs::write(dir.path().join(crate::audit::HEADS_FILE), format!("1800000000000 {head}\n")).unwrap();
    assert!(why().contains("entry 40 was there"), "{}", why());
    tamper("UPDATE audit_entry SET actor = 'token:other' WHERE seq = 7");
    assert!(why().contains("entry 7 was changed"), "{}", why());
}

#[tokio::test]
async fn a_security_event_that_comes_again_is_counted_within_its_hour() {
    for database in TestDatabase::both() {
        let (store, _) = open(&database);
        let binding = Binding { vehicle_id: "V".parse().unwrap(), gateway_id: "G".parse().unwrap() };
        for (kind, at) in [("BAN", 0), ("BAN", 3_599_999), ("BAN", 3_600_000), ("BOOT_LOOP", 1)] {
            let binding = binding.clone();
            let record = move |tx: &Tx<'_>| {
                security_events::record(tx, &binding, kind, &"x".repeat(9_999), UnixMillis(at))
            };
            store.write(record).await.unwrap();
        }
        let newest = (UnixMillis(i64::MAX), String::new());
        let events = store.read(move |tx| security_events::page(tx, &newest, 9)).await.unwrap();
        let counted: Vec<_> =
            events.iter().map(|event| (event.kind.as_str(), event.times, event.first_at.0)).collect();
        assert_eq!(counted, [("BAN", 1, 3_600_000), ("BAN", 2, 0), ("BOOT_LOOP", 1, 1)]);
        assert!(events.iter().all(|event| event.detail.len() == 512));
        let forgotten = store.write(|tx| security_events::forget(tx, UnixMillis(3_600_000))).await;
        assert_eq!(forgotten.unwrap(), 2);
    }
}

#[tokio::test]
async fn tokens_and_security_events_of_an_older_store_are_brought_forward() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farrier.db");
    let digest = farrier_protocol::Sha256::of(b"secret");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../../migrations/0001_first_light.sql")).unwrap();
    old.execute_batch(&format!(
        "CREATE TABLE schema_step (number BIGINT PRIMARY KEY, name TEXT NOT NULL);
         INSERT INTO schema_step VALUES (1, 'first_light');
         INSERT INTO operator_token VALUES ('{digest}', 'first', 1);
         INSERT INTO security_event VALUES ('a', 'V1', 'G', 'BOOT_LOOP', 'one', 7200001);
         INSERT INTO security_event VALUES ('b', 'V1', 'G', 'BOOT_LOOP', 'two', 7200002);
         INSERT INTO security_event VALUES ('c', 'V1', 'G', 'BOOT_LOOP', 'late', 10800000);"
    ))
    .unwrap();
    drop(old);
    let store = Store::open(&StoreAddress::Sqlite(path), Arc::new(|_| {})).unwrap();
    let token = store.read(move |tx| tokens::by_digest(tx, &digest)).await.unwrap().unwrap();
    assert_eq!((token.name.as_str(), token.scope), ("first", crate::access::Scope::Admin));
    let vehicle = "V1".parse().unwrap();
    let events = store.read(move |tx| security_events::of_vehicle(tx, &vehicle, 9)).await.unwrap();
    let events: Vec<_> = events.iter().map(|event| (event.subject.as_str(), event.times)).collect();
    assert_eq!(events, [("V1/G", 1), ("V1/G", 2)]);
}
