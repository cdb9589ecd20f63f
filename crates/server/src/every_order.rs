//! Every order of events: the server's real logic and the vehicle's real `VehicleUpdate` together, in virtual time, over
//! a network that loses, delays, doubles and cuts off, with a server that dies, gateways and ECUs that lose
//! power, wrong clocks, and an operator who cancels and undoes. At rest the server's record is what the vehicle runs.
//!
//! Each world is made from a seed. To see one again, with all that happened in it:
//! `FARRIER_WORLD=17 cargo test -p farrier-server every_order -- --nocapture`

mod course;
mod ecu;
mod gateway;
mod tape;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::in_memory::InMemory;
use tape::Tape;
use world::World;

/// Worlds in which something is wrong, after which no more are looked for.
const ENOUGH: usize = 5;

/// Lives through one world; says what is wrong in it.
fn lived(store: &mut InMemory, tape: Tape, logs: bool) -> (Result<(), String>, String) {
    store.forget();
    let mut world = World::new(store, tape, logs);
    let result = world.live();
    (result, world.course.log())
}

/// The simplest world found in which something is wrong too.
fn simplest(store: &mut InMemory, tape: Tape) -> Tape {
    let mut simplest = tape;
    'simpler: loop {
        for tape in simplest.simpler() {
            if lived(store, tape.rewound(), false).0.is_err() {
                simplest = tape;
                continue 'simpler;
            }
        }
        return simplest;
    }
}

/// What people need to see of a world in which something is wrong.
fn told(store: &mut InMemory, seed: u64) -> String {
    let simplest = simplest(store, Tape::of_seed(seed));
    let (result, log) = lived(store, simplest.rewound(), true);
    format!(
        "{log}\nin world {seed}, simplified to {} decisions: {}\n\
         again: FARRIER_WORLD={seed} cargo test -p farrier-server every_order -- --nocapture",
        simplest.faults(),
        result.unwrap_err()
    )
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is the number of a world, found {text:?}")))
}

#[test]
fn at_rest_the_record_is_what_the_vehicle_runs() {
    if let Some(seed) = number("FARRIER_WORLD") {
        let mut store = InMemory::new();
        let (result, log) = lived(&mut store, Tape::of_seed(seed), true);
        println!("{log}");
        if result.is_err() {
            panic!("{}", told(&mut store, seed));
        }
        return;
    }
    let worlds = number("FARRIER_WORLDS").unwrap_or(5_000);
    let next = AtomicU64::new(number("FARRIER_FIRST_WORLD").unwrap_or(0));
    let end = next.load(Ordering::Relaxed) + worlds;
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(4);
    let live = || {
        let mut store = InMemory::new();
        let mut wrong = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end || wrong.len() >= ENOUGH {
                return wrong;
            }
            if let Err(why) = lived(&mut store, Tape::of_seed(seed), false).0 {
                wrong.push((seed, why));
            }
        }
    };
    let mut wrong: Vec<(u64, String)> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(live)).collect();
        running.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    wrong.sort();
    if let Some((first, _)) = wrong.first() {
        let others: Vec<_> = wrong.iter().map(|(seed, why)| format!("world {seed}: {why}")).collect();
        panic!("{}\n\nwrong are:\n{}", told(&mut InMemory::new(), *first), others.join("\n"));
    }
}
