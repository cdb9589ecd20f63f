//! What has been typed of a campaign that is being planned: texts as they were typed, and nothing else. All of it travels with
//! the form from step to step, so that nothing is lost on the way, whichever way it is.

use std::collections::BTreeMap;

use farrier_campaign::{RETRY_RULES_AT_MOST, WAVES_AT_MOST, WINDOWS_AT_MOST};

/// Texts and ticks with the names that their inputs have.
macro_rules! typed {
    ($(#[$doc:meta])* $name:ident { texts: $($text:ident)*; ticks: $($tick:ident)*; }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub(super) struct $name {
            $(pub(super) $text: String,)*
            $(pub(super) $tick: bool,)*
        }

        impl $name {
            /// Takes what came under a name; a tick comes only where it is set.
            fn take(&mut self, name: &str, value: String) {
                match name {
                    $(stringify!($text) => self.$text = value,)*
                    $(stringify!($tick) => self.$tick = true,)*
                    _ => {}
                }
            }

            /// All of it by name, as a form would send it.
            fn sent(&self, prefix: &str, all: &mut BTreeMap<String, String>) {
                $(all.insert(format!("{prefix}{}", stringify!($text)), self.$text.clone());)*
                $(if self.$tick {
                    all.insert(format!("{prefix}{}", stringify!($tick)), "on".to_owned());
                })*
            }
        }
    };
}

typed! {
    /// What there is once.
    Whole {
        texts: name release whom query group vehicles excludes stop_failures stop_failed_percent
            vehicles_at_once starts_per_minute bytes_per_second spread_s time_zone not_before not_after
            update_deadline_s priority purpose functions_affected type_approved_systems
            effect_on_requirements effect_on_parameters approval execution_conditions safety verification
            user_information;
        ticks: follows needs_approval stop_inconsistent;
    }
}

typed! {
    /// A wave.
    Wave {
        texts: size size_number size_where size_group opens opens_at opens_percent stop_failures
            stop_failed_percent;
        ticks: stop_inconsistent;
    }
}

typed! {
    /// A maintenance window.
    Window {
        texts: from to;
        ticks: mon tue wed thu fri sat sun;
    }
}

typed! {
    /// A rule for further attempts.
    Retry {
        texts: code attempts pause_s factor longest_pause_s;
        ticks: ;
    }
}

/// A campaign that is being planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) whole: Whole,
    pub(super) waves: Vec<Wave>,
    pub(super) windows: Vec<Window>,
    pub(super) retries: Vec<Retry>,
}

impl Draft {
    /// Where planning begins: for every vehicle, by three waves, stopped early.
    pub(super) fn usual() -> Self {
        let wave = |size: &str, number: &str, opens: &str, percent: &str, stop: &str| Wave {
            size: size.to_owned(),
            size_number: number.to_owned(),
            opens: opens.to_owned(),
            opens_percent: percent.to_owned(),
            stop_failed_percent: stop.to_owned(),
            stop_inconsistent: true,
            ..Wave::default()
        };
        let whole = Whole {
            whom: "all".to_owned(),
            stop_failed_percent: "2".to_owned(),
            stop_inconsistent: true,
            priority: crate::store::intake::USUAL_PRIORITY.to_string(),
            ..Whole::default()
        };
        let waves = vec![
            wave("percent", "1", "at_once", "", "10"),
            wave("percent", "10", "after_success_percent", "90", "5"),
            wave("rest", "", "after_success_percent", "90", ""),
        ];
        Self { whole, waves, ..Self::default() }
    }

    /// As a form sent it; what no form of the console sends is left out. Browsers send line breaks as CR LF.
    pub(super) fn of(sent: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut draft = Self::default();
        for (name, value) in sent {
            let value = value.replace("\r\n", "\n");
            let parts: Vec<&str> = name.splitn(3, '-').collect();
            match parts.as_slice() {
                [name] => draft.whole.take(name, value),
                ["waves", index, name] => {
                    if let Some(wave) = place(&mut draft.waves, index, WAVES_AT_MOST) {
                        wave.take(name, value);
                    }
                }
                ["windows", index, name] => {
                    if let Some(window) = place(&mut draft.windows, index, WINDOWS_AT_MOST) {
                        window.take(name, value);
                    }
                }
                ["retries", index, name] => {
                    if let Some(retry) = place(&mut draft.retries, index, RETRY_RULES_AT_MOST) {
                        retry.take(name, value);
                    }
                }
                _ => {}
            }
        }
        draft
    }

    /// All of it by the names of the inputs.
    pub(super) fn sent(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        self.whole.sent("", &mut all);
        for (index, wave) in self.waves.iter().enumerate() {
            wave.sent(&format!("waves-{index}-"), &mut all);
        }
        for (index, window) in self.windows.iter().enumerate() {
            window.sent(&format!("windows-{index}-"), &mut all);
        }
        for (index, retry) in self.retries.iter().enumerate() {
            retry.sent(&format!("retries-{index}-"), &mut all);
        }
        all
    }

    /// Adds one to a list, or takes one away.
    pub(super) fn change(&mut self, change: &str) {
        let parts: Vec<&str> = change.split('-').collect();
        match parts.as_slice() {
            ["add", "wave"] if self.waves.len() < WAVES_AT_MOST => self.add_wave(),
            ["add", "window"] if self.windows.len() < WINDOWS_AT_MOST => self.windows.push(Window {
                from: "22:00".to_owned(),
                to: "05:00".to_owned(),
                ..Window::default()
            }),
            ["add", "retry"] if self.retries.len() < RETRY_RULES_AT_MOST => self.retries.push(Retry {
                code: "*".to_owned(),
                attempts: "3".to_owned(),
                pause_s: "1 h".to_owned(),
                factor: "2".to_owned(),
                longest_pause_s: "24 h".to_owned(),
            }),
            ["drop", list, index] => {
                let Ok(index) = index.parse::<usize>() else { return };
                match *list {
                    "waves" if index < self.waves.len() => drop(self.waves.remove(index)),
                    "windows" if index < self.windows.len() => drop(self.windows.remove(index)),
                    "retries" if index < self.retries.len() => drop(self.retries.remove(index)),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// A wave goes before the rest, which stays the last one.
    fn add_wave(&mut self) {
        let opens = if self.waves.len() <= 1 { "at_once" } else { "by_hand" }.to_owned();
        let new = Wave { size: "percent".to_owned(), opens, stop_inconsistent: true, ..Wave::default() };
        match self.waves.last_mut() {
            Some(rest) if rest.size == "rest" => {
                // Only the first wave opens at once.
                if rest.opens == "at_once" {
                    rest.opens = "by_hand".to_owned();
                }
                self.waves.insert(self.waves.len().saturating_sub(1), new);
            }
            Some(_) => self.waves.push(Wave { size: "rest".to_owned(), opens: "by_hand".to_owned(), ..new }),
            None => {
                let rest = Wave { size: "rest".to_owned(), opens: "by_hand".to_owned(), ..new.clone() };
                self.waves.extend([new, rest]);
            }
        }
    }
}

/// The place of a list at an index, made where it is not there yet.
fn place<'a, T: Default>(list: &'a mut Vec<T>, index: &str, most: usize) -> Option<&'a mut T> {
    let index: usize = index.parse().ok().filter(|index| *index < most)?;
    if list.len() <= index {
        list.resize_with(index.saturating_add(1), T::default);
    }
    list.get_mut(index)
}

/// The name of the input of what a JSON pointer of the API points at; that of its list's entry where there is none for itself.
pub(super) fn input_of(pointer: &str) -> String {
    let pointer = pointer.strip_prefix("/rollout").unwrap_or(pointer);
    let parts: Vec<&str> = pointer.split('/').skip(1).collect();
    match parts.as_slice() {
        ["where", ..] => "query".to_owned(),
        ["statement", rest @ ..] => rest.join("_"),
        [list @ ("waves" | "windows" | "retries"), index, rest @ ..] => match (*list, rest) {
            ("waves", ["opens", ..]) => format!("waves-{index}-opens"),
            ("waves", ["size"]) => format!("waves-{index}-size"),
            (_, rest) => format!("{list}-{index}-{}", rest.join("_")),
        },
        rest => rest.join("_"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::plan::steps::Step;

    #[test]
    fn what_the_api_points_at_has_an_input_in_a_step() {
        let mut draft = Draft::usual();
        draft.change("add-window");
        draft.change("add-retry");
        let inputs = draft.sent();
        for (pointer, input, step) in [
            ("/name", "name", Step::Vehicles),
            ("/where", "query", Step::Vehicles),
            ("/rollout/waves/1/size", "waves-1-size", Step::Waves),
            ("/rollout/waves/1/size/group", "waves-1-size_group", Step::Waves),
            ("/rollout/waves/2/opens/at", "waves-2-opens", Step::Waves),
            ("/rollout/waves/0/stop/failed_percent", "waves-0-stop_failed_percent", Step::Waves),
            ("/rollout/stop/failures", "stop_failures", Step::Waves),
            ("/rollout/vehicles_at_once", "vehicles_at_once", Step::Pace),
            ("/rollout/windows/0/to", "windows-0-to", Step::Pace),
            ("/rollout/not_after", "not_after", Step::Pace),
            ("/rollout/retries/0/longest_pause_s", "retries-0-longest_pause_s", Step::Rules),
            ("/priority", "priority", Step::Rules),
            ("/statement/purpose", "purpose", Step::Rules),
        ] {
            assert_eq!((input_of(pointer).as_str(), Step::of_input(input)), (input, step), "{pointer}");
            assert!(inputs.contains_key(input), "{input}");
        }
    }

    #[test]
    fn only_so_many_waves_are_made_of_what_somebody_sends() {
        let sent =
            [("waves-99-size", "rest"), ("waves-100-size", "rest"), ("waves-x-size", "rest"), ("a-b-c", "d")];
        let draft = Draft::of(sent.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(draft.waves.len(), WAVES_AT_MOST);
        assert_eq!(Draft::of(draft.sent()), draft);
    }
}
