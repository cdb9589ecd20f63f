//! Jobs that may be run again share a savepoint, or the transaction; what becomes of each is as if it had a savepoint of
//! its own.

use futures_util::future::{BoxFuture, join_all};
use proptest::prelude::*;

use super::*;
use crate::store::vehicles::{EnrolledBy, Heard};
use farrier_protocol::UnixMillis;

#[derive(Debug, Clone, Copy)]
struct Kind {
    may_run_again: bool,
    fails: bool,
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let kind = (prop::bool::weighted(0.8), prop::bool::weighted(0.1))
        .prop_map(|(may_run_again, fails)| Kind { may_run_again, fails });
    prop::collection::vec(kind, 1..160)
}

/// A job that adds a token, and then fails or not.
fn job(number: usize, fails: bool) -> impl Fn(&Tx<'_>) -> Result<usize, StoreError> + Clone + Send + 'static {
    move |tx| {
        let name = format!("token-{number:03}");
        tx.wake(&binding(number));
        add_token(tx, &name)?;
        if fails { add_token(tx, &name).map(|()| number) } else { Ok(number) }
    }
}

fn binding(number: usize) -> Binding {
    Binding { vehicle_id: format!("V{number}").parse().unwrap(), gateway_id: "G".parse().unwrap() }
}

/// Runs jobs that wait for the writer together; each must end as it has to, with its changes or without.
async fn run(kinds: &[Kind], first_may_run_again: bool) {
    let database = TestDatabase::sqlite();
    let (store, commits) = open(&database);
    let vehicle_id: VehicleId = "V".parse().unwrap();
    let guard = hold_writer_by(&store, first_may_run_again);
    let jobs = kinds.iter().enumerate().map(|(number, kind)| -> BoxFuture<'_, _> {
        let job = job(number, kind.fails);
        match kind.may_run_again {
            true => Box::pin(store.write_again_about(&vehicle_id, job)),
            false => Box::pin(store.write(job)),
        }
    });
    let release = async {
        tokio::task::yield_now().await;
        drop(guard);
    };
    let (results, ()) = tokio::join!(join_all(jobs), release);
    let mut good = Vec::new();
    for (number, (kind, result)) in kinds.iter().zip(results).enumerate() {
        match result {
            Ok(given) => {
                assert!(!kind.fails && given == number, "{number}: {kind:?}");
                good.push(number);
            }
            Err(error) => {
                assert!(kind.fails && matches!(error, StoreError::Statement(_)), "{number}: {error}")
            }
        }
    }
    let stored = store.read(|tx| tokens::page(tx, "", 1_000)).await.unwrap();
    let stored: Vec<_> = stored.into_iter().map(|token| token.name).collect();
    let expected: Vec<_> = good.iter().map(|number| format!("token-{number:03}")).collect();
    assert_eq!(stored, expected);
    let woken: BTreeSet<_> = commits.lock().unwrap().iter().flat_map(|c| c.wake.clone()).collect();
    assert_eq!(woken, good.into_iter().map(binding).collect(), "nobody is woken for what is undone");
    store.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn one_that_fails_undoes_only_itself_and_no_other_counts_twice(
        kinds in kinds(),
        first_may_run_again in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async { tokio::spawn(async move { run(&kinds, first_may_run_again).await }).await.unwrap() });
    }
}

/// When the vehicle was last heard, and by how much its clock was behind.
async fn last_heard(store: &Store, vehicle_id: &VehicleId) -> (Option<UnixMillis>, Option<i64>) {
    let vehicle_id = vehicle_id.clone();
    let vehicle = store.read(move |tx| vehicles::by_id(tx, &vehicle_id)).await.unwrap().unwrap();
    (vehicle.last_seen_at, vehicle.clock_skew_ms)
}

/// A job that hears the vehicle, and then fails or not.
fn hears(
    vehicle_id: &VehicleId,
    at: i64,
    fails: bool,
) -> impl Fn(&Tx<'_>) -> Result<(), StoreError> + Send + 'static {
    let vehicle_id = vehicle_id.clone();
    move |tx| {
        vehicles::heard(tx, &vehicle_id, Heard { at: UnixMillis(at), clock_skew_ms: at })?;
        if fails { Err(StoreError::NotCommitted) } else { Ok(()) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_the_messages_of_a_commit_the_last_that_was_taken_tells_when_its_vehicle_was_heard() {
    let database = TestDatabase::sqlite();
    let (store, _) = open(&database);
    let both = ["ONE", "TWO"].map(|id| Binding { vehicle_id: id.parse().unwrap(), ..binding(0) });
    for (number, binding) in both.clone().into_iter().enumerate() {
        let own = Binding { gateway_id: format!("G{number}").parse().unwrap(), ..binding };
        let job = move |tx: &Tx<'_>| vehicles::enrol(tx, &own, EnrolledBy::Operator, UnixMillis(1));
        store.write(job).await.unwrap();
    }
    let [one, two] = both.map(|binding| binding.vehicle_id);
    for first_may_run_again in [false, true] {
        let guard = hold_writer_by(&store, first_may_run_again);
        let looked_at = one.clone();
        let look = move |tx: &Tx<'_>| {
            Ok::<_, StoreError>(vehicles::by_id(tx, &looked_at)?.and_then(|vehicle| vehicle.last_seen_at))
        };
        let release = async {
            tokio::task::yield_now().await;
            drop(guard);
        };
        let (first, second, seen, third, failed, other, ()) = tokio::join!(
            store.write_again_about(&one, hears(&one, 10, false)),
            store.write_again_about(&one, hears(&one, 20, false)),
            store.write(look),
            store.write_again_about(&one, hears(&one, 30, false)),
            store.write_again_about(&one, hears(&one, 40, true)),
            store.write_again_about(&two, hears(&two, 15, false)),
            release
        );
        let taken: Result<Vec<()>, _> = [first, second, third, other].into_iter().collect();
        assert!(taken.is_ok() && failed.is_err());
        assert_eq!(
            seen.unwrap(),
            Some(UnixMillis(20)),
            "a job sees what those before it have left to be written"
        );
        assert_eq!(last_heard(&store, &one).await, (Some(UnixMillis(30)), Some(30)));
        assert_eq!(last_heard(&store, &two).await, (Some(UnixMillis(15)), Some(15)));
    }
    store.close().await;
}
