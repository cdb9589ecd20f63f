//! What is due is found by index, however large the fleet. The figures with 1,000,000 vehicle updates come by hand:
//! `cargo test --release -p farrier-server --lib fleet_tests -- --ignored --nocapture --test-threads 1`.

use std::time::Instant;

use super::*;
use crate::store::test_database::TestDatabase;
use crate::store::{evidence, sessions, timeline, updates, vehicle_certificates};
use crate::testbed::{Car, START, World};

/// When the updates of the fleet become due.
const DUE: UnixMillis = UnixMillis(START.0 + 3_600_000);

/// A world with so many vehicles that all download for the same campaign. `due` of them have their deadline at [`DUE`],
/// one every `every_ms`; the others' is far away.
async fn world_with_fleet(database: TestDatabase, vehicles: i64, due: i64, every_ms: i64) -> World {
    let world = World::on(database);
    let car = Car::known(&world, "V0").await;
    world.campaign_for_all().await;
    car.to_start_download(&world).await;
    let far = DUE.plus_seconds(1_000_000);
    world
        .write(move |tx, _, _| {
            tx.exec(
                "INSERT INTO vehicle (vehicle_id, gateway_id, client_id, enrolled_at, enrolled_by, recent_reboots) \
                 WITH RECURSIVE number (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM number WHERE n < $1) \
                 SELECT 'V' || CAST(n AS TEXT), 'CCU', 'V' || CAST(n AS TEXT) || '_CCU', v.enrolled_at, v.enrolled_by, \
                 v.recent_reboots FROM number, vehicle v WHERE v.vehicle_id = 'V0'",
                &[vehicles.into()],
            )?;
            tx.exec(
                "INSERT INTO vehicle_inventory (vehicle_id, vci) \
                 WITH RECURSIVE number (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM number WHERE n < $1) \
                 SELECT 'V' || CAST(n AS TEXT), i.vci FROM number, vehicle_inventory i WHERE i.vehicle_id = 'V0'",
                &[vehicles.into()],
            )?;
            tx.exec(
                "INSERT INTO vehicle_update (id, campaign_name, vehicle_id, attempt_id, state, data, phase, due_at, \
                 created_at, started_at, updated_at) \
                 WITH RECURSIVE number (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM number WHERE n < $1) \
                 SELECT 'u' || CAST(n AS TEXT), u.campaign_name, 'V' || CAST(n AS TEXT), u.attempt_id, u.state, u.data, \
                 u.phase, CASE WHEN n <= $2 THEN $3 + n * $4 ELSE $5 END, u.created_at, u.started_at, u.updated_at \
                 FROM number, vehicle_update u WHERE u.vehicle_id = 'V0'",
                &[vehicles.into(), due.into(), DUE.into(), every_ms.into(), far.into()],
            )?;
            tx.exec(
                "INSERT INTO command (msg_id, vehicle_id, gateway_id, message_type, payload, vehicle_update_id, \
                 try_number, queued_at, send_at, expires_at, delivered_at) \
                 WITH RECURSIVE number (n) AS (SELECT CAST(1 AS BIGINT) UNION ALL SELECT n + 1 FROM number WHERE n < $1) \
                 SELECT 'c' || CAST(n AS TEXT), 'V' || CAST(n AS TEXT), 'CCU', 'StartDownload', '{}', \
                 'u' || CAST(n AS TEXT), 0, $2, $2, $3, $2 FROM number",
                &[vehicles.into(), START.into(), DUE.into()],
            )?;
            tx.exec("ANALYZE", &[])
        })
        .await;
    world
}

/// The plans of all statements by which the runner looks for what is due.
async fn plans(world: &World) -> Vec<String> {
    let (rules, binding) = (Arc::clone(&world.rules), Car::new("V0").binding);
    world
        .store
        .write::<_, StoreError>(move |tx| {
            tx.explain();
            let none_due = UnixMillis(DUE.0 - 1_000);
            run_due(tx, &rules, none_due, none_due)?;
            commands::pending(tx, &binding, DUE, 16)?;
            Ok(tx.take_plans())
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_due_is_found_without_going_through_the_fleet() {
    for database in TestDatabase::both() {
        let world = world_with_fleet(database, 5_000, 0, 0).await;
        let plans = plans(&world).await;
        assert!(plans.len() >= 7, "{plans:#?}");
        for plan in &plans {
            for table in ["vehicle_update", "command", "vehicle"] {
                let scans = [
                    format!("Seq Scan on {table} "),
                    format!("SCAN {table}\n"),
                    format!("Seq Scan on {table}\n"),
                ];
                assert!(!scans.iter().any(|scan| plan.contains(scan.as_str())), "{plan}");
            }
            assert!(plan.to_lowercase().contains("index"), "{plan}");
        }
    }
}

#[tokio::test]
async fn what_the_record_of_an_update_names_is_found_without_going_through_the_messages_of_all() {
    for database in TestDatabase::both() {
        let world = world_with_fleet(database, 5_000, 0, 0).await;
        let plans = world
            .write(|tx, _, now| {
                tx.exec(
                    "INSERT INTO inbound_message (vehicle_id, gateway_id, msg_id, content_sha256, message_type, \
                     correlation_id, received_at) SELECT vehicle_id, gateway_id, 'a' || msg_id, $2, 'WakeUp', msg_id, $1 \
                     FROM command",
                    &[now.into(), "0".repeat(64).as_str().into()],
                )?;
                tx.exec("ANALYZE", &[])?;
                let update = updates::by_id(tx, "u17")?.unwrap();
                tx.explain();
                evidence::exchanged(tx, &update)?;
                Ok(tx.take_plans())
            })
            .await;
        assert_eq!(plans.len(), 2, "{plans:#?}");
        for plan in &plans {
            let told = plan.to_lowercase();
            assert!(!told.contains("seq scan on") && !told.contains("inbound_message_age"), "{plan}");
            assert!(!told.lines().any(|line| line.starts_with("scan ")), "{plan}");
        }
    }
}

#[tokio::test]
async fn certificates_that_end_are_found_without_going_through_the_fleet() {
    for database in TestDatabase::both() {
        let world = world_with_fleet(database, 5_000, 0, 0).await;
        let (plans, found) = world
            .write(|tx, _, now| {
                tx.exec(
                    "UPDATE vehicle SET certificate_ends_at = $1 + 86400000 * CAST(LENGTH(vehicle_id) AS BIGINT), \
                     certificate_serial = '01'",
                    &[now.into()],
                )?;
                tx.exec("ANALYZE", &[])?;
                let soon = now.plus_seconds(2 * 86_400 + 1);
                tx.explain();
                let counted = vehicle_certificates::count_ending(tx, soon)?;
                let page = vehicle_certificates::page_of_ending(tx, soon, (UnixMillis(i64::MIN), ""), 50)?;
                Ok((tx.take_plans(), (counted, page.len())))
            })
            .await;
        assert_eq!(found, (10, 10));
        assert_eq!(plans.len(), 2, "{plans:#?}");
        for plan in &plans {
            assert!(plan.contains("vehicle_certificate_end") && !plan.contains("Seq Scan"), "{plan}");
        }
    }
}

#[tokio::test]
async fn a_vehicles_connections_are_found_without_going_through_those_of_all() {
    for database in TestDatabase::both() {
        let world = world_with_fleet(database, 5_000, 0, 0).await;
        let plans = world
            .write(|tx, _, now| {
                tx.exec(
                    "INSERT INTO vehicle_session (client_id, id, node, came_at, gone_at, why) \
                     SELECT client_id, 's', 'node', $1, $1, 'LOST' FROM vehicle",
                    &[now.into()],
                )?;
                tx.exec("ANALYZE", &[])?;
                tx.explain();
                let id = "V17".parse().unwrap();
                assert!(!timeline::before(tx, &id, &timeline::Place::end(), 50)?.is_empty());
                sessions::latest(tx, "V17_CCU")?;
                Ok(tx.take_plans())
            })
            .await;
        assert_eq!(plans.len(), 2, "{plans:#?}");
        for plan in &plans {
            assert!(!plan.contains("Seq Scan on vehicle_session"), "{plan}");
            assert!(!plan.contains("SCAN vehicle_session"), "{plan}");
        }
    }
}

/// How long vehicles that are due wait until the runner has done what follows, and messages of others meanwhile.
async fn time_to_notice(database: TestDatabase, what: &str, due: i64, every_ms: i64) {
    const VEHICLES: i64 = 1_000_000;
    let filling = Instant::now();
    let world = world_with_fleet(database, VEHICLES, due, every_ms).await;
    let filled = filling.elapsed();
    let begun = Instant::now();
    let clock: WallClock =
        Arc::new(move || UnixMillis(DUE.0.saturating_add(begun.elapsed().as_millis().try_into().unwrap())));
    let runner = Runner {
        store: world.store.clone(),
        rules: Arc::clone(&world.rules),
        clock: Arc::clone(&clock),
        due_changed: Arc::new(Notify::new()),
    };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(runner.run(shutdown.clone()));
    let mut car = Car::new("V999999");
    let (mut longest_wait, mut messages) = (0, Vec::new());
    loop {
        let sent = Instant::now();
        car.reboot(&world, 100_000).await;
        messages.push(sent.elapsed());
        let now = clock();
        let oldest = world
            .read(move |tx| {
                let sql = "SELECT due_at FROM vehicle_update WHERE due_at <= $1 ORDER BY due_at, id LIMIT 1";
                tx.row(sql, &[now.into()], |row| row.time(0))
            })
            .await;
        match oldest {
            Some(oldest) => longest_wait = longest_wait.max(now.0 - oldest.0),
            None if now.0 > DUE.0 + due * every_ms => break,
            None => {}
        }
    }
    let took = begun.elapsed();
    shutdown.cancel();
    running.await.unwrap();
    messages.sort();
    let state = Car::new("V1").state(&world).await;
    assert_eq!(state, "verifying");
    println!(
        "{what}: {VEHICLES} updates ({:.0} s to fill), {due} due, one every {every_ms} ms: all done after {:.2} s, the \
         longest waited {longest_wait} ms; {} messages meanwhile, median {:.1} ms, longest {:.1} ms",
        filled.as_secs_f64(),
        took.as_secs_f64(),
        messages.len(),
        messages[messages.len() / 2].as_secs_f64() * 1_000.0,
        messages[messages.len() - 1].as_secs_f64() * 1_000.0,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "by hand: it fills a million rows, and its figures depend on the machine"]
async fn a_silent_vehicle_is_noticed_among_a_million() {
    time_to_notice(TestDatabase::sqlite(), "SQLite", 10_000, 1).await;
    time_to_notice(TestDatabase::sqlite(), "SQLite, as after a restart", 10_000, 0).await;
    time_to_notice(TestDatabase::postgres(), "PostgreSQL", 10_000, 1).await;
    time_to_notice(TestDatabase::postgres(), "PostgreSQL, as after a restart", 10_000, 0).await;
}
