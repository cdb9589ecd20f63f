//! The live connections, by client id: who is there, whom to wake, whom to cut.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use farrier_protocol::{Binding, Thumbprint};
use tokio::sync::Notify;

use crate::store::EarlierBinding;

/// Why the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The same client connected again.
    TakenOver,
    /// The certificate was revoked.
    CertificateRevoked,
    /// The vehicle has another binding.
    Rebound,
    /// The server stops.
    ShuttingDown,
}

/// What others want of a connection; the connection looks when it is notified.
#[derive(Debug, Default)]
pub(super) struct Signal {
    notify: Notify,
    wake: AtomicBool,
    ending: Mutex<Option<Ending>>,
}

impl Signal {
    fn wake(&self) {
        self.wake.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    fn end(&self, ending: Ending) {
        locked(&self.ending).get_or_insert(ending);
        self.notify.notify_one();
    }

    /// Waits until there is something to look at; cancel-safe.
    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Whether there may be new commands, asked once per wake.
    pub(super) fn take_wake(&self) -> bool {
        self.wake.swap(false, Ordering::AcqRel)
    }

    /// Whether the connection shall end.
    pub(super) fn ending(&self) -> Option<Ending> {
        *locked(&self.ending)
    }
}

#[derive(Debug)]
struct Entry {
    thumbprint: Thumbprint,
    signal: Arc<Signal>,
}

/// The registry of the vehicles' live MQTT connections.
///
/// A client id has one connection at a time: the later one ends the earlier one.
#[derive(Default)]
pub struct Connections {
    live: Mutex<HashMap<String, Entry>>,
    closing: AtomicBool,
    left: Notify,
    on_change: OnceLock<OnChange>,
}

/// Told of every client id whose connection came or went.
type OnChange = Box<dyn Fn(&str) + Send + Sync>;

impl Connections {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the vehicle's connection look for new commands now; says whether there is one.
    pub fn wake(&self, binding: &Binding) -> bool {
        match locked(&self.live).get(&binding.client_id()) {
            Some(entry) => {
                entry.signal.wake();
                true
            }
            None => false,
        }
    }

    /// Tells `on_change`, which must not block, of every client id whose connection comes or goes from now on.
    pub(crate) fn watch(&self, on_change: impl Fn(&str) + Send + Sync + 'static) {
        // Only the first is told: there is one who watches.
        let _ = self.on_change.set(Box::new(on_change));
    }

    /// The client ids that are connected.
    pub(crate) fn client_ids(&self) -> Vec<String> {
        locked(&self.live).keys().cloned().collect()
    }

    /// Whether this client id is connected.
    pub(crate) fn has_client(&self, client_id: &str) -> bool {
        locked(&self.live).contains_key(client_id)
    }

    fn changed(&self, client_id: &str) {
        if let Some(on_change) = self.on_change.get() {
            on_change(client_id);
        }
    }

    /// Ends all connections that were made with this certificate, because it was revoked.
    pub fn cut_certificate(&self, thumbprint: &Thumbprint) {
        for entry in locked(&self.live).values().filter(|entry| entry.thumbprint == *thumbprint) {
            entry.signal.end(Ending::CertificateRevoked);
        }
    }

    /// Ends the connection of a binding that is the vehicle's no more.
    pub(crate) fn cut_binding(&self, earlier: &EarlierBinding) {
        if let Some(entry) = locked(&self.live).get(&earlier.binding.client_id())
            && earlier.kept.as_ref() != Some(&entry.thumbprint)
        {
            entry.signal.end(Ending::Rebound);
        }
    }

    /// How many vehicles are connected.
    pub fn number(&self) -> usize {
        locked(&self.live).len()
    }

    /// Whether the vehicle is connected.
    pub fn is_connected(&self, binding: &Binding) -> bool {
        self.has_client(&binding.client_id())
    }

    /// Ends all connections because the server stops; resolves when the last has gone.
    /// Messages that are being taken are taken and acknowledged first.
    /// Connections that come later are ended as well.
    pub async fn close_all(&self) {
        self.closing.store(true, Ordering::Release);
        for entry in locked(&self.live).values() {
            entry.signal.end(Ending::ShuttingDown);
        }
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if locked(&self.live).is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Registers a connection where there are fewer than `most`. An earlier one of the same client id is ended,
    /// if it was made with the same certificate: another one may not push a vehicle out.
    pub(super) fn register(
        self: &Arc<Self>,
        client_id: &str,
        thumbprint: &Thumbprint,
        most: usize,
    ) -> Result<Registration, NotRegistered> {
        let signal = Arc::new(Signal::default());
        let mut live = locked(&self.live);
        match live.get(client_id) {
            Some(earlier) if earlier.thumbprint != *thumbprint && earlier.signal.ending().is_none() => {
                return Err(NotRegistered::OtherCertificate);
            }
            Some(earlier) => earlier.signal.end(Ending::TakenOver),
            None if live.len() >= most => return Err(NotRegistered::Full),
            None => {}
        }
        let entry = Entry { thumbprint: thumbprint.clone(), signal: Arc::clone(&signal) };
        live.insert(client_id.to_owned(), entry);
        drop(live);
        self.changed(client_id);
        if self.closing.load(Ordering::Acquire) {
            signal.end(Ending::ShuttingDown);
        }
        Ok(Registration { connections: Arc::clone(self), client_id: client_id.to_owned(), signal })
    }
}

/// Why a connection does not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotRegistered {
    /// There are as many as there may be.
    Full,
    /// The client is connected with another certificate.
    OtherCertificate,
}

/// A connection's place in the registry; dropping it gives the place up.
pub(super) struct Registration {
    connections: Arc<Connections>,
    client_id: String,
    signal: Arc<Signal>,
}

impl Registration {
    pub(super) fn signal(&self) -> &Arc<Signal> {
        &self.signal
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut live = locked(&self.connections.live);
        // A connection that took over keeps the place.
        if live.get(&self.client_id).is_some_and(|entry| Arc::ptr_eq(&entry.signal, &self.signal)) {
            live.remove(&self.client_id);
        }
        drop(live);
        self.connections.changed(&self.client_id);
        self.connections.left.notify_waiters();
    }
}

/// A panic while the lock was held cannot leave these maps half changed, so poisoning is ignored.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
