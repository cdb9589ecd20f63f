//! Campaigns as scripts: each line after `>` is carried out, and what it changes is written beneath it. The scripts are in
//! crates/system-tests/scenarios; `FARRIER_UPDATE_SCENARIOS=1` writes what happens now into them, to be read before it is kept.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use farrier_campaign::{Event, GateRecord, Opening, Rollout, StopRule, Wave, WaveSize, Window};
use farrier_protocol::MessageType;
use serde_json::json;

use crate::api::retry_some;
use crate::conversation::{Rules, advance};
use crate::desk::Receipt;
use crate::store::campaigns::{self, Aborted};
use crate::store::vehicles::Said;
use crate::store::{Tx, updates, vehicles};
use crate::testbed::{Car, START, World, text};

mod people;

/// With more vehicles than this only the numbers are told.
const TOLD_ONE_BY_ONE: usize = 12;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../system-tests/scenarios");
    let mut scripts: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    scripts
}

#[tokio::test]
async fn every_scenario_goes_as_it_is_written() {
    let scripts = scripts();
    assert!(scripts.len() >= 8, "expected the scenarios, found {scripts:?}");
    for path in scripts {
        let script = std::fs::read_to_string(&path).unwrap();
        let happened = play(&script).await;
        if std::env::var_os("FARRIER_UPDATE_SCENARIOS").is_some() {
            std::fs::write(&path, happened).unwrap();
        } else {
            assert_eq!(happened, script, "{}: the left is what happens now", path.display());
        }
    }
}

async fn play(script: &str) -> String {
    let mut stage = Stage { world: World::new(), cars: BTreeMap::new(), downloads: BTreeMap::new() };
    let mut written = String::new();
    let mut before = Seen::default();
    for line in script.lines() {
        if let Some(order) = line.strip_prefix("> ") {
            writeln!(written, "{line}").unwrap();
            let answer = stage.carry_out(order).await;
            stage.world.run_due().await;
            let now = stage.seen().await;
            written.push_str(&answer);
            written.push_str(&now.since(&before));
            before = now;
        } else if line.starts_with('#') || line.is_empty() {
            writeln!(written, "{line}").unwrap();
        }
    }
    written
}

/// What can be seen of all campaigns.
#[derive(Default, Clone)]
struct Seen {
    /// By campaign and vehicle.
    updates: BTreeMap<(String, String), String>,
    campaigns: BTreeMap<String, String>,
}

impl Seen {
    fn since(&self, before: &Self) -> String {
        let mut told = String::new();
        for (name, is) in &self.campaigns {
            if before.campaigns.get(name) != Some(is) {
                writeln!(told, "  {name}: {is}").unwrap();
            }
        }
        let changed: Vec<_> =
            self.updates.iter().filter(|(key, is)| before.updates.get(*key) != Some(is)).collect();
        if changed.len() <= TOLD_ONE_BY_ONE {
            for ((campaign, vehicle), is) in changed {
                writeln!(told, "  {campaign} {vehicle}: {is}").unwrap();
            }
        }
        told
    }
}

struct Stage {
    world: World,
    cars: BTreeMap<String, Car>,
    /// The ids of the StartDownloads under way.
    downloads: BTreeMap<String, String>,
}

impl Stage {
    async fn seen(&self) -> Seen {
        self.world
            .read(|tx| {
                let mut seen = Seen::default();
                for campaign in campaigns::page(tx, "", 100)? {
                    let name = campaign.name.to_string();
                    let updates = updates::page_of_campaign(tx, &campaign.name, "", 10_000)?;
                    let states = campaigns::counts(tx, &campaign.name)?.by_state;
                    let states: Vec<_> =
                        states.iter().map(|(state, number)| format!("{number} {state}")).collect();
                    let stands = match (&campaign.aborted, &campaign.stopped, campaign.paused_at) {
                        _ if campaign.started_at.is_none() => "planned",
                        (Some(_), _, _) => "aborted",
                        (None, Some(_), _) => "stopped",
                        (None, None, Some(_)) => "paused",
                        (None, None, None) => "runs",
                    };
                    let is_small = updates.len() <= TOLD_ONE_BY_ONE;
                    let states = if is_small { String::new() } else { format!("; {}", states.join(", ")) };
                    let waves = match campaign.rollout.waves.len() {
                        0 => String::new(),
                        number => format!(", {} of {number} waves open", campaign.gate.open),
                    };
                    seen.campaigns.insert(name.clone(), format!("{stands}{waves}{states}"));
                    for update in updates {
                        let key = (name.clone(), update.vehicle_id.to_string());
                        seen.updates.insert(key, update.state.name().to_owned());
                    }
                }
                Ok(seen)
            })
            .await
    }

    /// Carries out one line; gives what it answers.
    async fn carry_out(&mut self, order: &str) -> String {
        let words: Vec<_> = order.split_whitespace().collect();
        match words.as_slice() {
            [number, "vehicles"] => {
                for _ in 0..number.parse().unwrap() {
                    let name = format!("V{}", self.cars.len() + 1);
                    let car = Car::known(&self.world, &name).await;
                    self.cars.insert(name, car);
                }
            }
            ["release", version] => self.world.release(&format!("R{version}"), version).await,
            ["campaign", name, "brings", release, rest @ ..] => {
                let (intake, rest) = people::intake(rest);
                let rollout = rollout(&rest);
                assert_eq!(rollout.check(), Ok(()), "{order}");
                self.world.campaign_of(name, release, None, rollout, intake).await;
            }
            ["nobody", "is", "there"] => self.world.set_connected(false),
            ["everybody", "is", "there"] => self.world.set_connected(true),
            [vehicle, "lives", "in", zone] => {
                let (vehicle_id, zone) =
                    (self.cars[*vehicle].binding.vehicle_id.clone(), zone.parse().unwrap());
                let said = Said { time_zone: Some(zone), ..Said::default() };
                self.world.write(move |tx, _, _| vehicles::set_said(tx, &vehicle_id, &said)).await;
            }
            ["pass", seconds, "s"] => self.world.pass(seconds.parse().unwrap()).await,
            ["pause", name] => {
                let name = text(name);
                self.world.write(move |tx, _, now| campaigns::pause(tx, &name, now)).await;
            }
            ["resume", name] => {
                let name = text(name);
                let resume = move |tx: &Tx<'_>, _: &Rules, _| {
                    campaigns::resume(tx, &campaigns::by_name(tx, &name)?.unwrap())
                };
                self.world.write(resume).await;
            }
            ["abort", name] => {
                let name = text(name);
                let abort = move |tx: &Tx<'_>, _: &Rules, at| {
                    campaigns::abort(tx, &name, &Aborted { at, reason: text("a bad release") })
                };
                self.world.write(abort).await;
            }
            ["open", "wave", "of", name] => {
                let name = text(name);
                let open = move |tx: &Tx<'_>, _: &Rules, _| {
                    let campaign = campaigns::by_name(tx, &name)?.unwrap();
                    let record = GateRecord { open_next: true, ..campaign.gate };
                    campaigns::set_gate(tx, &name, &record)
                };
                self.world.write(open).await;
            }
            ["retry", code, "in", name] => {
                let (name, codes) = (text(name), vec![(*code).to_owned()]);
                let retry = move |tx: &Tx<'_>, rules: &Rules, now| {
                    let campaign = campaigns::by_name(tx, &name)?.unwrap();
                    retry_some(tx, rules, &campaign, &codes, "", now).map(drop)
                };
                self.world.write(retry).await;
            }
            ["cancel", vehicle, "in", name] => {
                let update = self.cars[*vehicle].update(&self.world, name).await;
                let event = Event::CancelAsked { reason: text("not this one") };
                self.world.write(move |tx, rules, now| advance(tx, rules, update, event, None, now)).await;
            }
            [who, "plans", name, "with", release, rest @ ..] => {
                self.plan(who, name, release, rollout(rest)).await
            }
            [who, "starts", name] => return self.starts(who, name).await,
            [who, said @ ("approves" | "rejects"), name] => return self.says(who, name, None, said).await,
            [who, said @ ("approves" | "rejects"), "wave", wave, "of", name] => {
                return self.says(who, name, Some(wave.parse().unwrap()), said).await;
            }
            [vehicle, "is", "tagged", tag] => self.tag(vehicle, tag).await,
            ["why", vehicle, "in", name] => {
                let update = self.cars[*vehicle].update(&self.world, name).await;
                return format!("  {}\n", update.state.sentence(self.world.now));
            }
            ["everybody", what @ ..] => {
                let vehicles: Vec<_> = self.cars.keys().cloned().collect();
                for vehicle in vehicles {
                    self.act(&vehicle, what, false).await;
                }
            }
            [vehicle, what @ ..] => self.act(vehicle, what, true).await,
            [] => panic!("an empty line"),
        }
        String::new()
    }

    /// A vehicle does something; `must` it be able to?
    async fn act(&mut self, vehicle: &str, what: &[&str], must: bool) {
        let world = &self.world;
        let car = self.cars.get_mut(vehicle).unwrap_or_else(|| panic!("no vehicle {vehicle}"));
        let expected = match what {
            ["wakes", "up"] => {
                car.wake_up(world).await;
                return;
            }
            ["answers", "VCI"] | ["downloads"] | ["is", "not", "ready", ..] => MessageType::RequestVci,
            ["is", "ready"] => MessageType::RequestDownloadReadiness,
            ["installs"] | ["fails"] | ["succeeds"] => MessageType::StartDownload,
            ["cancels"] => MessageType::CancelUpdate,
            other => panic!("cannot {other:?}"),
        };
        let is_downloading = self.downloads.contains_key(vehicle);
        let types = car.waiting_types(world).await;
        // It has taken its StartDownload already.
        let can =
            if expected == MessageType::StartDownload { is_downloading } else { types.contains(&expected) };
        assert!(can || !must, "{vehicle} cannot {what:?}: it has {types:?}");
        if !can {
            return;
        }
        match what {
            ["answers", "VCI"] => car.answer_vci(world).await,
            ["downloads"] => {
                let (id, _) = car.to_start_download(world).await;
                self.downloads.insert(vehicle.to_owned(), id);
            }
            ["is", "not", "ready", "for", seconds, "s"] => {
                car.answer_vci(world).await;
                car.answer_not_ready(world, seconds.parse().unwrap()).await;
            }
            ["is", "ready"] => {
                car.answer_ready(world).await;
                // A paused campaign sends it none.
                if car.waiting_types(world).await.contains(&MessageType::StartDownload) {
                    let start = car.command(world, MessageType::StartDownload).await.msg_id;
                    self.downloads.insert(vehicle.to_owned(), start.to_string());
                }
            }
            ["installs"] => {
                let receipt = car.report(world, &self.downloads[vehicle], "install").await;
                assert_eq!(receipt, Receipt::Accepted);
            }
            ["succeeds"] => {
                let id = self.downloads.remove(vehicle).unwrap();
                car.versions = vec!["2", "2"];
                assert_eq!(car.report(world, &id, "commit").await, Receipt::Accepted);
                car.answer_vci(world).await;
            }
            ["fails"] => {
                let id = self.downloads.remove(vehicle).unwrap();
                car.fail(world, &id, "UPDATE_FAILED", json!({"failed_ecus": ["e0"]})).await;
                car.answer_vci(world).await;
            }
            ["cancels"] => {
                self.downloads.remove(vehicle);
                let command = car.command(world, MessageType::CancelUpdate).await;
                car.fail(world, command.msg_id.as_str(), "CANCELLED", json!({})).await;
            }
            other => panic!("cannot {other:?}"),
        }
    }
}

/// `at-once=2`, `per-minute=5`, `stop-after=3`, `wave=2`, `wave=50%,after=100`, `wave=rest,by-hand`, `window=22:00-05:00`,
/// `spread=600`, `ends-in=3600`.
fn rollout(words: &[&str]) -> Rollout {
    let mut rollout = Rollout::default();
    for word in words {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "at-once" => rollout.vehicles_at_once = Some(value.parse().unwrap()),
            "per-minute" => rollout.starts_per_minute = Some(value.parse().unwrap()),
            "stop-after" => rollout.stop.failures = Some(value.parse().unwrap()),
            "wave" => rollout.waves.push(wave(value)),
            "window" => {
                let (from, to) = value.split_once('-').unwrap();
                let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
                rollout.windows.push(Window { days: Vec::new(), from, to });
            }
            "spread" => rollout.spread_s = Some(value.parse().unwrap()),
            "ends-in" => rollout.not_after = Some(START.plus_seconds(value.parse().unwrap())),
            other => panic!("no {other} in a rollout"),
        }
    }
    rollout
}

fn wave(value: &str) -> Wave {
    let (size, opening) = value.split_once(',').unwrap_or((value, ""));
    let size = match (size, size.strip_suffix('%')) {
        ("rest", _) => WaveSize::Rest,
        (tagged, None) if tagged.starts_with("tag:") => WaveSize::Where(people::tagged(&tagged[4..])),
        (_, Some(percent)) => WaveSize::Percent(percent.parse().unwrap()),
        (number, None) => WaveSize::Vehicles(number.parse().unwrap()),
    };
    let opens = match (opening, opening.strip_prefix("after=")) {
        ("", _) => Opening::AtOnce,
        ("by-hand", _) => Opening::ByHand,
        ("by-approval", _) => Opening::ByApproval,
        (_, share) => Opening::AfterSuccessPercent(share.unwrap().parse().unwrap()),
    };
    Wave { size, opens, stop: StopRule::default() }
}
