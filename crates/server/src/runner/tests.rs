use std::sync::Mutex;

use super::*;
use crate::testbed::{Car, START, World};
use farrier_protocol::MessageType;

/// Lets the runner's task go on until it has nothing to do.
async fn until_state(world: &World, car: &Car, expected: &str) {
    for _ in 0..2_000 {
        if car.state(world).await == expected {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("expected {expected}, found {}", car.state(world).await);
}

#[tokio::test]
async fn a_deadline_that_has_passed_is_acted_upon_when_the_runner_is_told() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    car.to_start_download(&world).await;

    let time = Arc::new(Mutex::new(START));
    let clock = Arc::clone(&time);
    let due_changed = Arc::new(Notify::new());
    let runner = Runner {
        store: world.store.clone(),
        rules: Arc::clone(&world.rules),
        clock: Arc::new(move || *clock.lock().unwrap()),
        due_changed: Arc::clone(&due_changed),
    };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(runner.run(shutdown.clone()));
    assert_eq!(car.state(&world).await, "downloading");
    world.now = START.plus_seconds(3_600);
    *time.lock().unwrap() = world.now;
    due_changed.notify_one();
    until_state(&world, &car, "verifying").await;
    assert_eq!(car.command_types(&world).await, [MessageType::RequestVci]);
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn more_than_fits_one_transaction_is_done_in_several() {
    let world = World::new();
    world.campaign_for_all().await;
    for number in 0..300 {
        Car::new(&format!("V{number}")).wake_up(&world).await;
    }
    let (rules, now) = (Arc::clone(&world.rules), START.plus_seconds(30));
    let run = || {
        let rules = Arc::clone(&rules);
        world.store.write::<_, StoreError>(move |tx| run_due(tx, &rules, START, now))
    };
    assert!(run().await.unwrap().has_more);
    let last = run().await.unwrap();
    assert!(!last.has_more);
    assert_eq!(last.next, Some(now.plus_seconds(30)));
}

#[test]
fn sleep_ends_when_something_is_due_and_is_never_long() {
    assert_eq!(until(Some(UnixMillis(1_500)), UnixMillis(1_000)), Duration::from_millis(500));
    assert_eq!(until(Some(UnixMillis(500)), UnixMillis(1_000)), Duration::ZERO);
    assert_eq!(until(Some(UnixMillis(i64::MAX)), UnixMillis(0)), LONGEST_SLEEP);
    assert_eq!(until(None, UnixMillis(0)), LONGEST_SLEEP);
}
