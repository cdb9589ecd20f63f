//! Jobs that may be run again share a savepoint; what becomes of each is as if it had one of its own.

use futures_util::future::{BoxFuture, join_all};
use proptest::prelude::*;

use super::*;

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
async fn run(kinds: &[Kind]) {
    let database = TestDatabase::sqlite();
    let (store, commits) = open(&database);
    let vehicle_id: VehicleId = "V".parse().unwrap();
    let guard = hold_writer(&store);
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
    fn one_that_fails_undoes_only_itself_and_no_other_counts_twice(kinds in kinds()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async { tokio::spawn(async move { run(&kinds).await }).await.unwrap() });
    }
}
