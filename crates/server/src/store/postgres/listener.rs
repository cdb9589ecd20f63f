//! Hears what other servers notify, on a thread and a connection of its own.

use std::error::Error;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use tokio_util::sync::CancellationToken;

use super::Session;
use super::address::PostgresAddress;
use crate::store::StoreError;
use crate::store::nodes::WAKE_CHANNEL;

/// After this time it looks whether the store is being closed.
const ATTENTION: Duration = Duration::from_millis(200);
/// Before a connection that broke is made again. What is missed meanwhile, the servers' slow look finds.
const PAUSE: Duration = Duration::from_millis(500);

/// Told of every notification; must not block.
pub(crate) type OnNotification = Box<dyn Fn(&str) + Send>;

pub(super) fn spawn(
    address: Arc<PostgresAddress>,
    on_notification: OnNotification,
    closing: CancellationToken,
) -> Result<JoinHandle<()>, StoreError> {
    let thread = std::thread::Builder::new().name("store-listener".to_owned()).spawn(move || {
        while !closing.is_cancelled() {
            if let Err(error) = listen(&address, &on_notification, &closing) {
                tracing::warn!(
                    store = address.shown(),
                    error = &error as &dyn Error,
                    "Other servers' notifications cannot be heard at the moment."
                );
                std::thread::sleep(PAUSE);
            }
        }
    });
    thread.map_err(|_| StoreError::NotCommitted)
}

fn listen(
    address: &PostgresAddress,
    on_notification: &OnNotification,
    closing: &CancellationToken,
) -> Result<(), StoreError> {
    let mut session = Session::connect(address)?;
    session.batch(&format!("LISTEN {WAKE_CHANNEL}"))?;
    while !closing.is_cancelled() {
        let lost = |error| StoreError::ConnectionLost(Box::new(error));
        let began = Instant::now();
        let mut notifications = session.client().notifications();
        let mut heard = notifications.timeout_iter(ATTENTION);
        while let Some(notification) = heard.next().map_err(lost)? {
            on_notification(notification.payload());
        }
        drop(heard);
        drop(notifications);
        // A connection that is over has no more notifications, and says so at once.
        if began.elapsed() < ATTENTION / 2 {
            return Err(StoreError::NotCommitted);
        }
    }
    Ok(())
}
