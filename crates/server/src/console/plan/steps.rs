//! The steps of planning, and which inputs each has.

use super::document::{Fault, STATED};
use super::draft::{Draft, Retry, Wave, Window};
use crate::console::form::{Field, Kind};
use crate::console::texts::{Texts, filled};

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Vehicles,
    Waves,
    Pace,
    Rules,
    Review,
}

impl Step {
    pub(super) const ALL: [Self; 5] = [Self::Vehicles, Self::Waves, Self::Pace, Self::Rules, Self::Review];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vehicles => "vehicles",
            Self::Waves => "waves",
            Self::Pace => "pace",
            Self::Rules => "rules",
            Self::Review => "review",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }

    pub(super) fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::Vehicles => t.step_vehicles,
            Self::Waves => t.step_waves,
            Self::Pace => t.step_pace,
            Self::Rules => t.step_rules,
            Self::Review => t.step_review,
        }
    }

    /// From 1.
    pub(super) fn number(self) -> usize {
        Self::ALL.iter().take_while(|step| **step <= self).count()
    }

    pub(super) fn next(self) -> Self {
        Self::ALL.into_iter().find(|step| *step > self).unwrap_or(self)
    }

    pub(super) fn before(self) -> Option<Self> {
        Self::ALL.into_iter().rev().find(|step| *step < self)
    }

    /// The one in which an input stands.
    pub(super) fn of_input(input: &str) -> Self {
        let list = input.split('-').next().unwrap_or_default();
        match list {
            "name" | "release" | "whom" | "query" | "group" | "vehicles" | "follows" | "excludes" => {
                Self::Vehicles
            }
            "waves" | "stop_failures" | "stop_failed_percent" | "stop_inconsistent" => Self::Waves,
            "windows" | "vehicles_at_once" | "starts_per_minute" | "bytes_per_second" | "spread_s"
            | "time_zone" | "not_before" | "not_after" => Self::Pace,
            "retries" | "update_deadline_s" | "priority" | "needs_approval" => Self::Rules,
            stated if STATED.contains(&stated) => Self::Rules,
            _ => Self::Review,
        }
    }
}

/// Inputs that belong together.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) legend: String,
    pub(super) note: &'static str,
    pub(super) fields: Vec<Field>,
    /// What takes it away.
    pub(super) drop: Option<String>,
    /// What adds another one after it.
    pub(super) add: Option<(&'static str, &'static str)>,
    /// Whether how many vehicles are selected is shown below it while it changes.
    pub(super) selects: bool,
    /// Whether it is opened only by whoever wants it.
    pub(super) is_folded: bool,
}

impl Part {
    fn new(legend: impl Into<String>, note: &'static str, fields: Vec<Field>) -> Self {
        Self { legend: legend.into(), note, fields, drop: None, add: None, selects: false, is_folded: false }
    }
}

/// What is offered to be chosen.
#[derive(Debug, Default)]
pub(super) struct Offered {
    pub(super) releases: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) campaigns: Vec<String>,
}

/// The parts of a step, each fault at its input; those of no input of the step are given back.
pub(super) fn parts(
    t: &'static Texts,
    step: Step,
    draft: &Draft,
    offered: &Offered,
    faults: &[Fault],
) -> (Vec<Part>, Vec<Fault>) {
    let mut parts = match step {
        Step::Vehicles => vehicles(t, draft, offered),
        Step::Waves => waves(t, draft, offered),
        Step::Pace => pace(t, draft),
        Step::Rules => rules(t, draft),
        Step::Review => Vec::new(),
    };
    let mut others = Vec::new();
    for fault in faults {
        let field =
            parts.iter_mut().flat_map(|part| &mut part.fields).find(|field| field.name == fault.input);
        match field {
            Some(field) => {
                field.fault = Some(fault.objection.clone());
                field.mark.clone_from(&fault.mark);
            }
            None => others.push(fault.clone()),
        }
    }
    for part in &mut parts {
        part.is_folded &= part.fields.iter().all(|field| field.fault.is_none() && field.value.is_empty());
    }
    (parts, others)
}

fn choice(words: &[(&str, &str)]) -> Kind {
    Kind::Choice(words.iter().map(|(value, words)| ((*value).to_owned(), (*words).to_owned())).collect())
}

/// The fleet groups, the one that was chosen among them even where it is gone.
fn group_choice(t: &Texts, offered: &Offered, chosen: &str) -> Kind {
    let mut choices = vec![(String::new(), t.choose_one.to_owned())];
    choices.extend(offered.groups.iter().map(|name| (name.clone(), name.clone())));
    if choices.iter().all(|(name, _)| name != chosen) {
        choices.push((chosen.to_owned(), chosen.to_owned()));
    }
    Kind::Choice(choices)
}

fn vehicles(t: &'static Texts, draft: &Draft, offered: &Offered) -> Vec<Part> {
    let whole = &draft.whole;
    let whom = choice(&[
        ("all", t.whom_all),
        ("where", t.whom_where),
        ("group", t.whom_group),
        ("vehicles", t.whom_vehicles),
    ]);
    let what = vec![
        Field::text("name", t.name, &whole.name).with_hint(t.hint_name),
        Field::new("release", t.release, Kind::Text(64, offered.releases.clone()), &whole.release)
            .with_hint(t.hint_release),
    ];
    let selection = vec![
        Field::new("whom", t.whom, whom, &whole.whom),
        Field::new("query", t.query, Kind::Lines, &whole.query).only_of("where"),
        Field::new("group", t.fleet_group, group_choice(t, offered, &whole.group), &whole.group)
            .only_of("group"),
        Field::new("vehicles", t.vehicle_ids, Kind::Lines, &whole.vehicles)
            .with_hint(t.hint_vehicle_ids)
            .only_of("named"),
        Field::tick("follows", t.follows, whole.follows).with_hint(t.hint_follows).only_of("selected"),
        Field::new("excludes", t.excludes, Kind::Text(1_200, offered.campaigns.clone()), &whole.excludes)
            .with_hint(t.hint_excludes),
    ];
    let mut selection = Part::new(t.whom, t.note_whom, selection);
    selection.selects = true;
    vec![Part::new(t.step_what, "", what), selection]
}

fn stop_fields(
    t: &'static Texts,
    prefix: &str,
    failures: &str,
    percent: &str,
    inconsistent: bool,
) -> [Field; 3] {
    [
        Field::number(format!("{prefix}stop_failed_percent"), t.stop_failed_percent, percent)
            .with_hint(t.hint_percent),
        Field::number(format!("{prefix}stop_failures"), t.stop_failures, failures).with_hint(t.hint_failures),
        Field::tick(format!("{prefix}stop_inconsistent"), t.stop_inconsistent, inconsistent),
    ]
}

fn waves(t: &'static Texts, draft: &Draft, offered: &Offered) -> Vec<Part> {
    let mut parts: Vec<_> =
        draft.waves.iter().enumerate().map(|(index, wave)| one_wave(t, index, wave, offered)).collect();
    match parts.last_mut() {
        Some(last) => last.add = Some(("add-wave", t.add_wave)),
        None => {
            let mut none = Part::new(t.waves, t.note_no_waves, Vec::new());
            none.add = Some(("add-wave", t.add_wave));
            parts.push(none);
        }
    }
    if let Some(first) = parts.first_mut() {
        first.note = if draft.waves.is_empty() { t.note_no_waves } else { t.note_waves };
    }
    let whole = &draft.whole;
    let stop = stop_fields(t, "", &whole.stop_failures, &whole.stop_failed_percent, whole.stop_inconsistent);
    parts.push(Part::new(t.stop_of_all, t.note_stop, stop.into()));
    parts
}

fn one_wave(t: &'static Texts, index: usize, wave: &Wave, offered: &Offered) -> Part {
    let input = |name: &str| format!("waves-{index}-{name}");
    let sizes = choice(&[
        ("percent", t.size_percent),
        ("vehicles", t.size_vehicles),
        ("where", t.size_where),
        ("group", t.size_group),
        ("rest", t.size_rest),
    ]);
    let opens = choice(&[
        ("at_once", t.opens_at_once),
        ("by_hand", t.opens_by_hand),
        ("by_approval", t.opens_by_approval),
        ("at", t.opens_at_time),
        ("after_success_percent", t.opens_after_share),
    ]);
    let group = group_choice(t, offered, &wave.size_group);
    let mut fields = vec![
        Field::new(input("size"), t.wave_size, sizes, &wave.size),
        Field::number(input("size_number"), t.how_many, &wave.size_number).only_of("counted"),
        Field::new(input("size_where"), t.query, Kind::Lines, &wave.size_where).only_of("where"),
        Field::new(input("size_group"), t.fleet_group, group, &wave.size_group).only_of("group"),
        Field::new(input("opens"), t.opens, opens, &wave.opens),
        Field::new(input("opens_at"), t.time_utc, Kind::Instant, &wave.opens_at).only_of("at"),
        Field::number(input("opens_percent"), t.share_percent, &wave.opens_percent)
            .with_hint(t.hint_opens_percent)
            .only_of("after"),
    ];
    fields.extend(stop_fields(
        t,
        &input(""),
        &wave.stop_failures,
        &wave.stop_failed_percent,
        wave.stop_inconsistent,
    ));
    let mut part = Part::new(format!("{} {}", t.wave, index.saturating_add(1)), "", fields);
    part.drop = Some(format!("drop-waves-{index}"));
    part
}

fn pace(t: &'static Texts, draft: &Draft) -> Vec<Part> {
    let whole = &draft.whole;
    let caps = vec![
        Field::number("vehicles_at_once", t.vehicles_at_once, &whole.vehicles_at_once)
            .with_hint(t.hint_at_once),
        Field::number("starts_per_minute", t.starts_per_minute, &whole.starts_per_minute)
            .with_hint(t.hint_per_minute),
        Field::text("bytes_per_second", t.bytes_per_second, &whole.bytes_per_second).with_hint(t.hint_bytes),
        Field::text("spread_s", t.spread, &whole.spread_s).with_hint(t.hint_spread),
    ];
    let mut parts = vec![Part::new(t.caps, t.note_caps, caps)];
    parts.extend(draft.windows.iter().enumerate().map(|(index, window)| one_window(t, index, window)));
    match parts.last_mut() {
        Some(last) if !draft.windows.is_empty() => last.add = Some(("add-window", t.add_window)),
        Some(_) | None => {
            let mut none = Part::new(t.windows, t.note_no_windows, Vec::new());
            none.add = Some(("add-window", t.add_window));
            parts.push(none);
        }
    }
    let times = vec![
        Field::text("time_zone", t.time_zone, &whole.time_zone).with_hint(t.hint_time_zone),
        Field::new("not_before", t.not_before, Kind::Instant, &whole.not_before).with_hint(t.hint_not_before),
        Field::new("not_after", t.not_after, Kind::Instant, &whole.not_after).with_hint(t.hint_not_after),
    ];
    parts.push(Part::new(t.first_and_last, "", times));
    parts
}

fn one_window(t: &'static Texts, index: usize, window: &Window) -> Part {
    let input = |name: &str| format!("windows-{index}-{name}");
    let mut fields = vec![
        Field::text(input("from"), t.window_from, &window.from).with_hint(t.hint_time_of_day),
        Field::text(input("to"), t.window_to, &window.to).with_hint(t.hint_window_to),
    ];
    let days = window.days().map(|(day, is_on)| Field::tick(input(day), t.weekday(day), is_on));
    fields.extend(days);
    let legend = filled(t.window_number, &[&index.saturating_add(1).to_string()]);
    let mut part = Part::new(legend, t.note_days, fields);
    part.drop = Some(format!("drop-windows-{index}"));
    part
}

fn rules(t: &'static Texts, draft: &Draft) -> Vec<Part> {
    let whole = &draft.whole;
    let mut parts: Vec<_> =
        draft.retries.iter().enumerate().map(|(index, retry)| one_retry(t, index, retry)).collect();
    match parts.last_mut() {
        Some(last) => last.add = Some(("add-retry", t.add_retry)),
        None => {
            let mut none = Part::new(t.retries, t.note_no_retries, Vec::new());
            none.add = Some(("add-retry", t.add_retry));
            parts.push(none);
        }
    }
    let order = vec![
        Field::tick("needs_approval", t.needs_approval, whole.needs_approval)
            .with_hint(t.hint_needs_approval),
        Field::number("priority", t.priority, &whole.priority).with_hint(t.hint_priority),
        Field::text("update_deadline_s", t.update_deadline, &whole.update_deadline_s)
            .with_hint(t.hint_deadline),
    ];
    parts.push(Part::new(t.order_and_approval, "", order));
    let stated = whole
        .stated()
        .map(|(name, value)| Field::new(name, t.stated(name), Kind::Text(512, Vec::new()), value));
    let mut stated = Part::new(t.statement, t.note_statement, stated.into());
    stated.is_folded = true;
    parts.push(stated);
    parts
}

/// How an attempt can fail that another one may follow.
const CODES: [&str; 12] = [
    "*",
    "UPDATE_FAILED",
    "DEADLINE_PASSED",
    "COMMIT_NOT_FOUND",
    "SERVICE_REQUIRED",
    "EXPIRED",
    "UNSUPPORTED",
    "BUSY",
    "DELTA_BASE_MISMATCH",
    "VCI_INCOMPLETE",
    "CANCEL_REFUSED",
    "ROLLBACK_UNAVAILABLE",
];

fn one_retry(t: &'static Texts, index: usize, retry: &Retry) -> Part {
    let input = |name: &str| format!("retries-{index}-{name}");
    let codes = CODES.map(|code| {
        let words = if code == "*" { t.any_failure.to_owned() } else { code.to_owned() };
        (code.to_owned(), words)
    });
    let fields = vec![
        Field::new(input("code"), t.failure, Kind::Choice(codes.into()), &retry.code),
        Field::number(input("attempts"), t.attempts_in_all, &retry.attempts).with_hint(t.hint_attempts),
        Field::text(input("pause_s"), t.pause_first, &retry.pause_s).with_hint(t.hint_span),
        Field::number(input("factor"), t.pause_factor, &retry.factor).with_hint(t.hint_factor),
        Field::text(input("longest_pause_s"), t.pause_longest, &retry.longest_pause_s).with_hint(t.hint_span),
    ];
    let legend = filled(t.retry_number, &[&index.saturating_add(1).to_string()]);
    let mut part = Part::new(legend, if index == 0 { t.note_retries } else { "" }, fields);
    part.drop = Some(format!("drop-retries-{index}"));
    part
}
