//! The whole system under test: a real server, real gateways, simulated ECUs, and clients written by others.
//! Everything listens on free loopback ports and lives in a temporary folder; nothing waits by the clock.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "scaffolding of tests: a panic is how it says what is wrong"
)]

pub mod api;
pub mod browser;
pub mod can_recording;
pub mod controller_certificates;
pub mod cutting_proxy;
pub mod failing_sync;
pub mod mosquitto;
pub mod mqtt_client;
pub mod recording;
pub mod testbed;

use std::time::Duration;

use tokio::time::Instant;

/// How long anything may take that a test waits for: long enough for a busy machine, and never slept through.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks again until there is an answer; panics with `what` was expected after [`PATIENCE`].
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut every = tokio::time::interval(Duration::from_millis(20));
    loop {
        every.tick().await;
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", PATIENCE.as_secs());
    }
}
