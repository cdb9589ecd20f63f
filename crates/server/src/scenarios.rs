//! Campaigns as scripts: each line after `>` is carried out, and what it changes is written beneath it. The scripts are in
//! crates/system-tests/scenarios; `FARRIER_UPDATE_SCENARIOS=1` writes what happens now into them, to be read before it is kept.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use farrier_campaign::{Event, GateRecord};
use farrier_protocol::{MessageType, UpTopic};
use serde_json::json;

use crate::api::retry_some;
use crate::conversation::{Rules, advance, take_back};
use crate::desk::Receipt;
use crate::store::audit::Actor;
use crate::store::campaigns::{self, Aborted};
use crate::store::vehicles::Said;
use crate::store::{Tx, commands, set_aside, updates, vehicles};
use crate::testbed::{Car, World, text};

mod people;

mod words;

use words::{release, rollout, spoken};

/// With more vehicles than this only the numbers are told.
const TOLD_ONE_BY_ONE: usize = 17;

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
            ["vehicle", name, "with", ecus @ ..] => {
                let mut car = Car::new(name);
                (car.hardware, car.versions) =
                    ecus.iter().map(|ecu| spoken(ecu).split_once('@').unwrap()).unzip();
                car.wake_up(&self.world).await;
                car.answer_vci(&self.world).await;
                self.cars.insert((*name).to_owned(), car);
            }
            ["release", name, "brings", words @ ..] => {
                let (name, (images, rules)) = (text(name), release(words));
                self.world.release_of(name, images, rules).await;
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
                    retry_some(tx, rules, &campaign, &codes, "", now)
                };
                let done = self.world.write(retry).await;
                return format!("  {} tried again, {} set aside\n", done.retried, done.set_aside);
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
            ["roll", "back", vehicle, "in", name] => {
                let update = self.cars[*vehicle].update(&self.world, name).await;
                let event = Event::RollbackAsked;
                self.world.write(move |tx, rules, now| advance(tx, rules, update, event, None, now)).await;
            }
            ["bind", vehicle, "to", gateway] => self.rebind(vehicle, gateway).await,
            ["take", "back", vehicle, "for", release] => {
                let (vehicle_id, release) = (self.cars[*vehicle].binding.vehicle_id.clone(), text(release));
                let taken = self.world.write(move |tx, _, now| {
                    take_back(tx, &Actor::server(), &vehicle_id, &release, || "repaired".to_owned(), now)
                });
                assert!(taken.await.is_some(), "{order}");
            }
            ["who", "is", "set", "aside"] => {
                let found = self.world.read(|tx| set_aside::page(tx, ("", ""), 100)).await;
                let told = found.iter().map(|one| {
                    let set_aside::SetAside { vehicle_id, release, failures, campaign, code, .. } = one;
                    format!(
                        "  {vehicle_id} for {release}: {failures} failures, the last {code} in {campaign}\n"
                    )
                });
                return told.collect();
            }
            ["plan", "of", vehicle, "in", name] => {
                let update = self.cars[*vehicle].update(&self.world, name).await;
                let mut packages = update.state.plan().unwrap().packages.clone();
                packages.sort_by_key(|package| package.install_order);
                let told = packages.iter().map(|package| {
                    let (order, ecu, hardware) =
                        (package.install_order, &package.ecu_id, &package.hw_part_no);
                    format!(
                        "  {order}. {ecu} ({hardware}) from {} to {}\n",
                        package.earlier_version, package.version
                    )
                });
                return told.collect();
            }
            ["why", "everybody", "in", name] => {
                let mut told = String::new();
                for (vehicle, car) in &self.cars {
                    let update = car.update(&self.world, name).await;
                    writeln!(told, "  {vehicle}: {}", update.state.sentence(self.world.now)).unwrap();
                }
                return told;
            }
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
            [vehicle, what @ .., "in", "vain"] => {
                let (world, car) = (&self.world, &self.cars[*vehicle]);
                let receipt = match what {
                    ["wakes", "up"] => car.send(world, UpTopic::Wakeup, &car.wake_up_message(100_000)).await,
                    ["reports", operation] => {
                        let download = &self.downloads[vehicle.split('/').next().unwrap()];
                        car.report(world, download, operation).await
                    }
                    other => panic!("cannot {other:?} in vain"),
                };
                assert_ne!(receipt, Receipt::Accepted, "{order}");
                let refused = car.refused(world).await;
                let last = refused.iter().max_by_key(|refused| refused.last_at).unwrap();
                return format!("  refused: {}\n", last.refusal);
            }
            [vehicle, what @ ..] => self.act(vehicle, what, true).await,
            [] => panic!("an empty line"),
        }
        String::new()
    }

    /// The vehicle has another gateway; the earlier one is called by the vehicle's name and `/old`.
    async fn rebind(&mut self, vehicle: &str, gateway: &str) {
        let old = self.cars.remove(vehicle).unwrap();
        let mut new = Car::new(vehicle);
        new.binding.gateway_id = gateway.parse().unwrap();
        (new.versions, new.hardware) = (old.versions.clone(), old.hardware.clone());
        let (earlier, binding) = (old.vehicle(&self.world).await.unwrap(), new.binding.clone());
        self.world
            .write(move |tx, _, now| {
                vehicles::rebind(tx, &earlier, &binding, None, &text("repair"), now)?;
                commands::close_of_binding(tx, &earlier.binding, now)
            })
            .await;
        self.cars.insert(vehicle.to_owned(), new);
        self.cars.insert(format!("{vehicle}/old"), old);
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
            ["says", "what", "it", "runs"] => {
                car.answer_vci(world).await;
                return;
            }
            ["answers", "VCI"] | ["downloads"] | ["is", "not", "ready", ..] => MessageType::RequestVci,
            ["is", "ready"] => MessageType::RequestDownloadReadiness,
            ["installs"] | ["reports", _] | ["fails", ..] | ["succeeds"] => MessageType::StartDownload,
            ["ends", "mixed"] => MessageType::StartDownload,
            ["cancels"] => MessageType::CancelUpdate,
            ["rolls", "back"] => MessageType::StartRollback,
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
                let receipt = report(world, car, &self.downloads[vehicle], "install").await;
                assert_eq!(receipt, Receipt::Accepted);
            }
            ["reports", operation] => {
                let receipt = report(world, car, &self.downloads[vehicle], operation).await;
                assert_eq!(receipt, Receipt::Accepted);
            }
            ["succeeds"] => {
                let id = self.downloads.remove(vehicle).unwrap();
                assert_eq!(report(world, car, &id, "commit").await, Receipt::Accepted);
                car.answer_vci(world).await;
            }
            ["fails", with @ ..] => {
                let code = with.last().unwrap_or(&"UPDATE_FAILED");
                let id = self.downloads.remove(vehicle).unwrap();
                car.fail(world, &id, code, json!({"failed_ecus": ["e0"]})).await;
                car.answer_vci(world).await;
            }
            ["ends", "mixed"] => {
                let id = self.downloads.remove(vehicle).unwrap();
                car.fail(world, &id, "SERVICE_REQUIRED", json!({})).await;
                car.versions = vec!["2", "1"];
                car.answer_vci(world).await;
            }
            ["rolls", "back"] => {
                let command = car.command(world, MessageType::StartRollback).await;
                assert_eq!(car.report(world, command.msg_id.as_str(), "rollback").await, Receipt::Accepted);
                car.versions = vec!["1", "1"];
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

/// Reports a step of the update under way; after the last one the ECUs run what it brings.
async fn report(world: &World, car: &mut Car, download: &str, operation: &str) -> Receipt {
    let vehicle_id = car.binding.vehicle_id.clone();
    let all = world.read(move |tx| updates::of_vehicle(tx, &vehicle_id)).await;
    let under_way = all.iter().find(|update| update.state.may_download()).unwrap();
    let plan = under_way.state.plan().unwrap();
    let mut result = car.result(download, operation);
    result["ecu_count"] = json!(plan.ecu_count());
    if operation == "commit" {
        for package in &plan.packages {
            let number: usize = package.ecu_id.as_str()[1..].parse().unwrap();
            car.versions[number] = spoken(package.version.as_str());
        }
    }
    car.send(world, UpTopic::Result, &result).await
}
