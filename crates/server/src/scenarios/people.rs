//! What scripts say of who is in a campaign, in which order, and who agrees.

use farrier_campaign::{GateRecord, Rollout, Selection};

use super::Stage;
use crate::api::{say, start_by};
use crate::conversation::{Rules, take_in_first, take_into_following_campaigns};
use crate::store::audit::Actor;
use crate::store::campaigns::{self, Campaign};
use crate::store::intake::Intake;
use crate::store::{Tx, vehicles};
use crate::testbed::text;

pub(super) fn tagged(tag: &str) -> Selection {
    format!("tag = \"{tag}\"").parse().unwrap()
}

/// `follows=TAG`, `priority=900`, `excludes=C1`; gives back the other words.
pub(super) fn intake<'w>(words: &[&'w str]) -> (Intake, Vec<&'w str>) {
    let (mut intake, mut rest) = (Intake::default(), Vec::new());
    for word in words {
        match word.split_once('=').unwrap() {
            ("follows", tag) => {
                (intake.query, intake.follows) = (Some(tagged(tag).to_string()), true);
            }
            ("priority", number) => intake.priority = number.parse().unwrap(),
            ("excludes", name) => intake.excludes.push(text(name)),
            (_, _) => rest.push(*word),
        }
    }
    (intake, rest)
}

fn person(who: &str) -> Actor {
    Actor::token(who, None, "script")
}

impl Stage {
    /// Plans a campaign that needs an approval.
    pub(super) async fn plan(&self, who: &str, name: &str, release: &str, rollout: Rollout) {
        let campaign = Campaign {
            name: text(name),
            release: text(release),
            every_vehicle: true,
            update_deadline_s: None,
            created_at: self.world.now,
            started_at: None,
            paused_at: None,
            aborted: None,
            rollout,
            gate: GateRecord::default(),
            stopped: None,
            starting: None,
            intake: Intake {
                needs_approval: true,
                made_by: Some(person(who).name().to_owned()),
                ..Intake::default()
            },
        };
        self.world.write(move |tx, _, _| campaigns::create(tx, &campaign, &[])).await;
    }

    pub(super) async fn starts(&self, who: &str, name: &str) -> String {
        let (who, name) = (person(who), text(name));
        let start = move |tx: &Tx<'_>, rules: &Rules, now| {
            let started = start_by(tx, rules, &who, &name, now);
            take_in_first(tx, rules, &name, now)?;
            Ok(started)
        };
        told(self.world.write(start).await.map_err(|problem| problem.told()))
    }

    pub(super) async fn says(&self, who: &str, name: &str, wave: Option<u32>, said: &str) -> String {
        let (who, name, word) = (person(who), text(name), (wave, said == "approves", text("looked at it")));
        let say = move |tx: &Tx<'_>, rules: &Rules, now| Ok(say(tx, rules, &who, &name, word, now));
        told(self.world.write(say).await.map_err(|problem| problem.told()))
    }

    pub(super) async fn tag(&self, vehicle: &str, tag: &str) {
        let (vehicle_id, tag) = (vehicle.parse().unwrap(), tag.parse().unwrap());
        let change = move |tx: &Tx<'_>, rules: &Rules, now| {
            vehicles::lock(tx, &vehicle_id)?;
            vehicles::add_tag(tx, &vehicle_id, &tag)?;
            take_into_following_campaigns(tx, rules, &vehicle_id, now)
        };
        self.world.write(change).await;
    }
}

fn told(said: Result<(), String>) -> String {
    said.err().map(|refusal| format!("  {refusal}\n")).unwrap_or_default()
}
