//! From what was typed to the document of the API.

use farrier_protocol::{LongText, Text, UnixMillis, VehicleId};
use serde_json::{Map, Value, json};

use super::draft::{Draft, Retry, Wave, Whole, Window};
use crate::api::new_campaign::NewCampaign;
use crate::console::objection::Objection;
use crate::console::query::{self, Mark};
use crate::console::texts::Texts;
use crate::console::{form, quantity};

/// What is wrong with what stands in an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The name of the input; empty where it is the campaign as a whole.
    pub(super) input: String,
    pub(super) objection: Objection,
    /// Where in a query.
    pub(super) mark: Option<Mark>,
}

/// Names of what is stated, as inputs and the API have them.
pub(super) const STATED: [&str; 10] = [
    "purpose",
    "functions_affected",
    "type_approved_systems",
    "effect_on_requirements",
    "effect_on_parameters",
    "approval",
    "execution_conditions",
    "safety",
    "verification",
    "user_information",
];

impl Whole {
    pub(super) fn stated(&self) -> [(&'static str, &String); 10] {
        let values = [
            &self.purpose,
            &self.functions_affected,
            &self.type_approved_systems,
            &self.effect_on_requirements,
            &self.effect_on_parameters,
            &self.approval,
            &self.execution_conditions,
            &self.safety,
            &self.verification,
            &self.user_information,
        ];
        let mut values = values.into_iter();
        STATED.map(|name| (name, values.next().unwrap_or(&self.purpose)))
    }
}

impl Draft {
    /// The document as the API takes it, or everything in it that cannot be read. What can be read and is not allowed is the
    /// API's to say.
    pub(super) fn document(&self, t: &'static Texts) -> Result<NewCampaign, Vec<Fault>> {
        let mut reading = Reading { t, faults: Vec::new() };
        let document = reading.campaign(self);
        if !reading.faults.is_empty() {
            return Err(reading.faults);
        }
        serde_json::from_value(document).map_err(|error| {
            vec![Fault { input: String::new(), objection: format!("{error}.").into(), mark: None }]
        })
    }
}

/// Turns texts into values, and notes those that cannot be.
struct Reading {
    t: &'static Texts,
    faults: Vec<Fault>,
}

impl Reading {
    fn fault(&mut self, input: &str, sentence: String) {
        self.faults.push(Fault { input: input.to_owned(), objection: sentence.into(), mark: None });
    }

    /// `None` where nothing was typed, or something that cannot be read.
    fn read<T>(
        &mut self,
        input: &str,
        typed: &str,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let typed = typed.trim();
        if typed.is_empty() {
            return None;
        }
        let value = read(typed);
        if value.is_none() {
            self.fault(input, form::unfit(self.t, expected, typed));
        }
        value
    }

    fn number(&mut self, input: &str, typed: &str) -> Option<u64> {
        self.read(input, typed, self.t.a_whole_number, |text| text.parse().ok())
    }

    fn percent(&mut self, input: &str, typed: &str) -> Option<u8> {
        self.read(input, typed, self.t.a_percentage, |text| text.parse().ok())
    }

    fn seconds(&mut self, input: &str, typed: &str) -> Option<u64> {
        self.read(input, typed, self.t.a_span, quantity::seconds)
    }

    fn instant(&mut self, input: &str, typed: &str) -> Option<UnixMillis> {
        self.read(input, typed, self.t.an_instant, quantity::instant)
    }

    fn needed<T>(&mut self, input: &str, value: Option<T>, expected: &str) -> Option<T> {
        // What cannot be read was noted already.
        if value.is_none() && self.faults.iter().all(|fault| fault.input != input) {
            self.fault(input, form::unfit(self.t, expected, ""));
        }
        value
    }

    fn query(&mut self, input: &str, typed: &str) -> Option<String> {
        match query::read(self.t, typed) {
            Ok(selection) => Some(selection.to_string()),
            Err(mark) => {
                let objection = mark.sentence.clone().into();
                self.faults.push(Fault { input: input.to_owned(), objection, mark: Some(mark) });
                None
            }
        }
    }

    fn campaign(&mut self, draft: &Draft) -> Value {
        let whole = &draft.whole;
        let mut document = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                document.insert(key.to_owned(), value);
            }
        };
        put("name", json!(whole.name.trim()));
        put("release", json!(whole.release.trim()));
        match whole.whom.as_str() {
            "where" => put("where", json!(self.query("query", &whole.query))),
            "group" => put("group", json!(whole.group.trim())),
            "vehicles" => put("vehicles", json!(self.vehicles(&whole.vehicles))),
            _ => {}
        }
        // Vehicles that are named one by one, and every vehicle, are no query that could be followed.
        put("follows", json!(whole.follows && matches!(whole.whom.as_str(), "where" | "group")));
        put("update_deadline_s", json!(self.seconds("update_deadline_s", &whole.update_deadline_s)));
        put("priority", json!(self.number("priority", &whole.priority)));
        let excludes = whole.excludes.split([',', ' ', '\n']).filter(|name| !name.is_empty());
        put("excludes", json!(excludes.collect::<Vec<_>>()));
        put("needs_approval", json!(whole.needs_approval));
        put("rollout", self.rollout(draft));
        put("statement", self.statement(whole));
        Value::Object(document)
    }

    fn vehicles(&mut self, typed: &str) -> Vec<VehicleId> {
        let mut vehicles = Vec::new();
        for text in typed.split([',', ' ', '\n', '\t']).filter(|text| !text.is_empty()) {
            vehicles.extend(self.read("vehicles", text, self.t.vehicle_ids, |text| text.parse().ok()));
        }
        vehicles
    }

    fn statement(&mut self, whole: &Whole) -> Value {
        let mut stated = Map::new();
        for (name, typed) in whole.stated() {
            let read = |text: &str| text.parse::<LongText>().ok();
            if let Some(text) = self.read(name, typed, self.t.a_long_text, read) {
                stated.insert(name.to_owned(), json!(text));
            }
        }
        if stated.is_empty() { Value::Null } else { Value::Object(stated) }
    }

    fn rollout(&mut self, draft: &Draft) -> Value {
        let whole = &draft.whole;
        let stop =
            (whole.stop_failures.as_str(), whole.stop_failed_percent.as_str(), whole.stop_inconsistent);
        let bytes_per_second =
            self.read("bytes_per_second", &whole.bytes_per_second, self.t.a_size, quantity::octets);
        let time_zone =
            self.read("time_zone", &whole.time_zone, self.t.a_time_zone, |text| text.parse::<Text>().ok());
        json!({
            "waves": (0..).zip(&draft.waves).map(|(index, wave)| self.wave(index, wave)).collect::<Vec<_>>(),
            "stop": self.stop("", stop),
            "vehicles_at_once": self.number("vehicles_at_once", &whole.vehicles_at_once),
            "starts_per_minute": self.number("starts_per_minute", &whole.starts_per_minute),
            "windows": (0..).zip(&draft.windows).map(|(index, window)| self.window(index, window)).collect::<Vec<_>>(),
            "time_zone": time_zone,
            "not_before": self.instant("not_before", &whole.not_before),
            "not_after": self.instant("not_after", &whole.not_after),
            "spread_s": self.seconds("spread_s", &whole.spread_s),
            "bytes_per_second": bytes_per_second,
            "retries": (0..).zip(&draft.retries).map(|(index, retry)| self.retry(index, retry)).collect::<Vec<_>>(),
        })
    }

    fn stop(&mut self, prefix: &str, (failures, percent, inconsistent): (&str, &str, bool)) -> Value {
        json!({
            "failures": self.number(&format!("{prefix}stop_failures"), failures),
            "failed_percent": self.percent(&format!("{prefix}stop_failed_percent"), percent),
            "inconsistent": inconsistent,
        })
    }

    fn wave(&mut self, index: usize, wave: &Wave) -> Value {
        let input = |name: &str| format!("waves-{index}-{name}");
        let number = input("size_number");
        let size = match wave.size.as_str() {
            "vehicles" => {
                let vehicles = self.number(&number, &wave.size_number);
                json!({"vehicles": self.needed(&number, vehicles, self.t.a_whole_number)})
            }
            "where" => json!({"where": self.query(&input("size_where"), &wave.size_where)}),
            "group" => {
                let group = input("size_group");
                let name =
                    self.read(&group, &wave.size_group, self.t.fleet_group, |text| text.parse::<Text>().ok());
                json!({"group": self.needed(&group, name, self.t.fleet_group)})
            }
            "rest" => json!("rest"),
            _ => {
                let percent = self.percent(&number, &wave.size_number);
                json!({"percent": self.needed(&number, percent, self.t.a_percentage)})
            }
        };
        let opens = match wave.opens.as_str() {
            "at" => {
                let (name, at) = (input("opens_at"), self.instant(&input("opens_at"), &wave.opens_at));
                json!({"at": self.needed(&name, at, self.t.an_instant)})
            }
            "after_success_percent" => {
                let name = input("opens_percent");
                let percent = self.percent(&name, &wave.opens_percent);
                json!({"after_success_percent": self.needed(&name, percent, self.t.a_percentage)})
            }
            "by_hand" => json!("by_hand"),
            "by_approval" => json!("by_approval"),
            _ => json!("at_once"),
        };
        let stop = (wave.stop_failures.as_str(), wave.stop_failed_percent.as_str(), wave.stop_inconsistent);
        json!({"size": size, "opens": opens, "stop": self.stop(&input(""), stop)})
    }

    fn window(&mut self, index: usize, window: &Window) -> Value {
        let time = |text: &str| text.parse::<farrier_campaign::LocalTime>().ok();
        let mut side = |name: &str, typed: &str| {
            let input = format!("windows-{index}-{name}");
            let read = self.read(&input, typed, self.t.a_time_of_day, time);
            self.needed(&input, read, self.t.a_time_of_day)
        };
        let (from, to) = (side("from", &window.from), side("to", &window.to));
        let days: Vec<_> =
            window.days().into_iter().filter(|(_, is_on)| *is_on).map(|(day, _)| day).collect();
        json!({"days": days, "from": from, "to": to})
    }

    fn retry(&mut self, index: usize, retry: &Retry) -> Value {
        let input = |name: &str| format!("retries-{index}-{name}");
        let attempts = self.number(&input("attempts"), &retry.attempts);
        let mut rule = Map::new();
        rule.insert("code".to_owned(), json!(retry.code));
        rule.insert(
            "attempts".to_owned(),
            json!(self.needed(&input("attempts"), attempts, self.t.a_whole_number)),
        );
        let pauses = [
            ("pause_s", self.seconds(&input("pause_s"), &retry.pause_s)),
            ("factor", self.number(&input("factor"), &retry.factor)),
            ("longest_pause_s", self.seconds(&input("longest_pause_s"), &retry.longest_pause_s)),
        ];
        rule.extend(pauses.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))));
        Value::Object(rule)
    }
}

impl Window {
    pub(super) fn days(&self) -> [(&'static str, bool); 7] {
        [
            ("mon", self.mon),
            ("tue", self.tue),
            ("wed", self.wed),
            ("thu", self.thu),
            ("fri", self.fri),
            ("sat", self.sat),
            ("sun", self.sun),
        ]
    }
}
