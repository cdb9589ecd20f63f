//! What a test holds of a running ECU: its faults and its power supply.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Faults;

/// Faults that the running ECU and its handles share.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedFaults(Arc<Mutex<Faults>>);

impl SharedFaults {
    pub(super) fn new(faults: Faults) -> Self {
        Self(Arc::new(Mutex::new(faults)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Faults> {
        // Faults are never left half changed, so they are good even after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The faults and the power of one running ECU. Clones are handles of the same ECU.
#[derive(Debug, Clone)]
pub struct EcuHandle {
    faults: SharedFaults,
    wanted: watch::Sender<bool>,
    powered: watch::Receiver<bool>,
}

impl EcuHandle {
    /// The handle, and what the ECU itself keeps of it.
    pub(super) fn new(faults: SharedFaults) -> (Self, Supply) {
        let (wanted, is_wanted) = watch::channel(true);
        let (is_powered, powered) = watch::channel(true);
        (Self { faults, wanted, powered }, Supply { wanted: is_wanted, powered: is_powered })
    }

    /// What the ECU does wrong; those faults that happen a number of times have counted down.
    pub fn faults(&self) -> Faults {
        self.faults.lock().clone()
    }

    /// Changes what the ECU does wrong, from its next request on.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.lock() = faults;
    }

    /// Cuts the ECU's power; when this returns, it is off. What it had not saved is lost, a write that was under
    /// way may have happened or not, requests are not answered.
    pub async fn cut_power(&self) {
        self.switch(false).await;
    }

    /// Gives the ECU power again: it boots from what it had saved, and is silent until then.
    pub async fn restore_power(&self) {
        self.switch(true).await;
    }

    async fn switch(&self, on: bool) {
        self.wanted.send_replace(on);
        // An ECU whose entity was stopped is off for ever.
        let _ = self.powered.clone().wait_for(|powered| *powered == on).await;
    }
}

/// The ECU's side of its power supply.
#[derive(Debug)]
pub(super) struct Supply {
    wanted: watch::Receiver<bool>,
    powered: watch::Sender<bool>,
}

impl Supply {
    /// Resolves when the power is to go; never if nobody can cut it.
    pub(super) async fn cut(&mut self) {
        if self.wanted.wait_for(|on| !*on).await.is_err() {
            std::future::pending().await
        }
    }

    /// Resolves when the power is to come back; never if nobody can restore it.
    pub(super) async fn restored(&mut self) {
        if self.wanted.wait_for(|on| *on).await.is_err() {
            std::future::pending().await
        }
    }

    /// Tells the handles how it is now.
    pub(super) fn report(&self, powered: bool) {
        self.powered.send_replace(powered);
    }
}
