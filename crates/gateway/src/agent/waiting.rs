//! Waits with the install until the vehicle is ready and the driver agrees. It ends by the deadline or a cancel,
//! which drop it.

use std::time::Duration;

use farrier_protocol::NotReadyReason;
use farrier_vehicle_update::{Event, InstallStep, Plan, ReadinessPolicy};

use super::Agent;
use crate::config::{Consent, ConsentSettings};
use crate::consent::{self, ConsentError};
use crate::error_text::with_causes;
use crate::readiness::ReadinessSource;

impl Agent {
    pub(super) fn await_ready(&mut self, before: InstallStep) {
        let Some(plan) = self.update.as_ref().map(|update| update.plan().clone()) else { return };
        let (signals, config, status) = (self.signals.clone(), self.config.clone(), self.status.clone());
        self.spawn(
            plan.command.clone(),
            async move {
                let show = |waits_for: &str| {
                    status.send_if_modified(|status| {
                        let is_new = status.waits_for.as_deref() != Some(waits_for);
                        if is_new {
                            tracing::info!(waits_for, "The install waits.");
                            status.waits_for = Some(waits_for.to_owned());
                        }
                        is_new
                    });
                };
                let waiting = Waiting {
                    signals: signals.as_ref(),
                    policy: &config.readiness_policy,
                    consent: &config.consent,
                };
                waiting.wait(&plan, before, show).await
            },
            Event::WaitGivenUp,
        );
    }
}

/// What the install waits for, and by which rules.
struct Waiting<'a> {
    signals: &'a dyn ReadinessSource,
    policy: &'a ReadinessPolicy,
    consent: &'a ConsentSettings,
}

impl Waiting<'_> {
    async fn wait(&self, plan: &Plan, before: InstallStep, show: impl Fn(&str)) -> Event {
        let mut not_ready = Vec::new();
        loop {
            let waits_for = match (self.vehicle(&mut not_ready), before) {
                (None, InstallStep::Processing | InstallStep::Activating) => return Event::Ready,
                (None, InstallStep::Consent) => match self.driver(plan, &show).await {
                    Ok(true) => return Event::Ready,
                    Ok(false) => return Event::ConsentDenied("the driver does not agree".to_owned()),
                    Err(error) => with_causes(&error),
                },
                (Some(waits_for), _) => waits_for,
            };
            show(&waits_for);
            tokio::time::sleep(Duration::from_millis(self.policy.install_check_ms)).await;
        }
    }

    async fn driver(&self, plan: &Plan, show: &impl Fn(&str)) -> Result<bool, ConsentError> {
        if self.consent.ask != Consent::Auto {
            show("the driver's consent");
        }
        consent::ask(self.consent, plan).await
    }

    /// What the vehicle is not ready for.
    fn vehicle(&self, not_ready: &mut Vec<NotReadyReason>) -> Option<String> {
        let signals = match self.signals.measure() {
            Ok(signals) => signals,
            Err(unavailable) => return Some(with_causes(&unavailable)),
        };
        *not_ready = self.policy.judge_install(&signals, not_ready).reasons;
        let names: Vec<&str> = not_ready.iter().map(|reason| reason.name()).collect();
        (!names.is_empty()).then(|| format!("the vehicle ({})", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use farrier_vehicle_update::VehicleSignals;
    use tokio::time::Instant;

    use super::*;
    use crate::image_store::tests::plan;
    use crate::readiness::SignalsUnavailable;

    /// Speeds, one for each question; nothing = the signals cannot be read. The last one stays.
    struct Speeds(Mutex<Vec<Option<f64>>>);

    impl ReadinessSource for Speeds {
        fn measure(&self) -> Result<VehicleSignals, SignalsUnavailable> {
            let mut left = self.0.lock().unwrap();
            let speed = if left.len() > 1 { left.remove(0) } else { left[0] };
            let Some(speed) = speed else { return Err(unreadable()) };
            let mut signals = VehicleSignals::default();
            signals.conditions.speed_kmh = Some(speed);
            Ok(signals)
        }
    }

    fn unreadable() -> SignalsUnavailable {
        SignalsUnavailable::Invalid { path: Path::new("signals").to_owned(), found: "nothing".to_owned() }
    }

    async fn waited(speeds: &[Option<f64>], ask: Consent, before: InstallStep) -> (Event, Vec<String>) {
        let consent = ConsentSettings { ask, ..ConsentSettings::default() };
        let signals = Speeds(Mutex::new(speeds.to_vec()));
        let waiting = Waiting { signals: &signals, policy: &ReadinessPolicy::default(), consent: &consent };
        let shown = Mutex::new(Vec::new());
        let show = |waits_for: &str| shown.lock().unwrap().push(waits_for.to_owned());
        let event = waiting.wait(&plan("2.0", &[("ecu_1", b"image")]), before, show).await;
        (event, shown.into_inner().unwrap())
    }

    fn program(script: &str) -> Consent {
        Consent::Command(["sh", "-c", script].map(str::to_owned).to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn a_vehicle_that_moves_waits_with_the_install_until_it_stands() {
        let began = Instant::now();
        let speeds = [Some(30.0), None, Some(1.0), Some(0.0)];
        for before in [InstallStep::Consent, InstallStep::Processing, InstallStep::Activating] {
            let (event, shown) = waited(&speeds, Consent::Auto, before).await;
            assert_eq!(event, Event::Ready);
            assert_eq!(shown[0], "the vehicle (VEHICLE_MOVING)");
            assert!(shown[1].contains("expected signals"), "{shown:?}");
            assert_eq!(shown.len(), 3);
        }
        assert_eq!(began.elapsed(), Duration::from_secs(45), "nine looks in vain, 5 s each");
    }

    #[tokio::test]
    async fn the_driver_is_asked_once_and_not_again_before_ecus_are_written_or_restart() {
        let still = [Some(0.0)];
        let (event, shown) = waited(&still, program("exit 0"), InstallStep::Consent).await;
        assert_eq!((event, shown), (Event::Ready, vec!["the driver's consent".to_owned()]));
        let (event, _) = waited(&still, program("exit 1"), InstallStep::Consent).await;
        assert!(matches!(event, Event::ConsentDenied(_)), "{event:?}");
        for before in [InstallStep::Processing, InstallStep::Activating] {
            let (event, shown) = waited(&still, program("exit 1"), before).await;
            assert_eq!((event, shown), (Event::Ready, Vec::new()));
        }
    }
}
