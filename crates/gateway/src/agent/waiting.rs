//! Waits with the install until the vehicle is ready and the driver agrees. It ends by the deadline or a cancel,
//! which drop it.

use std::sync::Arc;
use std::time::Duration;

use farrier_protocol::NotReadyReason;
use farrier_vehicle_update::{Event, InstallStep, Plan};

use super::Agent;
use crate::config::GatewayConfig;
use crate::consent;
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
                wait(signals, &config, &plan, before, show).await
            },
            Event::WaitGivenUp,
        );
    }
}

async fn wait(
    signals: Arc<dyn ReadinessSource>,
    config: &GatewayConfig,
    plan: &Plan,
    before: InstallStep,
    show: impl Fn(&str),
) -> Event {
    let mut agrees = match before {
        InstallStep::Processing => false,
        InstallStep::Activating => true,
    };
    let mut not_ready = Vec::new();
    loop {
        let waits_for = match vehicle(signals.as_ref(), config, &mut not_ready) {
            // What the driver agreed to may have become wrong meanwhile: the vehicle is looked at again.
            None if agrees => return Event::Ready,
            None => {
                show("the driver's consent");
                match consent::ask(&config.consent, plan).await {
                    Ok(true) => {
                        agrees = true;
                        continue;
                    }
                    Ok(false) => return Event::ConsentDenied("the driver does not agree".to_owned()),
                    Err(error) => with_causes(&error),
                }
            }
            Some(waits_for) => waits_for,
        };
        show(&waits_for);
        tokio::time::sleep(Duration::from_millis(config.readiness_policy.install_check_ms)).await;
    }
}

/// What the vehicle is not ready for.
fn vehicle(
    signals: &dyn ReadinessSource,
    config: &GatewayConfig,
    not_ready: &mut Vec<NotReadyReason>,
) -> Option<String> {
    let signals = match signals.measure() {
        Ok(signals) => signals,
        Err(unavailable) => return Some(with_causes(&unavailable)),
    };
    *not_ready = config.readiness_policy.judge_install(&signals, not_ready).reasons;
    let names: Vec<&str> = not_ready.iter().map(|reason| reason.name()).collect();
    (!names.is_empty()).then(|| format!("the vehicle ({})", names.join(", ")))
}
