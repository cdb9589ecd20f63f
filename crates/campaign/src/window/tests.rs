use proptest::prelude::*;

use super::*;

fn ms(text: &str) -> UnixMillis {
    UnixMillis(text.parse::<Timestamp>().unwrap().as_millisecond())
}

fn window(days: &[Weekday], from: &str, to: &str) -> Window {
    Window { days: days.to_vec(), from: from.parse().unwrap(), to: to.parse().unwrap() }
}

/// From when until when a window is open, looked for at a time.
fn open(zone: &str, window: &Window, at: &str) -> (String, String) {
    let span = open_span(std::slice::from_ref(window), &Zone::named(zone).unwrap(), ms(at)).unwrap();
    (written(span.from), written(span.until))
}

fn spans(found: (String, String), from: &str, until: &str) {
    assert_eq!(found, (from.to_owned(), until.to_owned()));
}

#[test]
fn a_window_goes_by_the_clock_of_the_zone_and_may_pass_midnight() {
    let night = window(&[Weekday::Fri], "22:00", "05:00");
    // Friday, 15 January 2027.
    spans(open("Asia/Seoul", &night, "2027-01-15T08:00:00Z"), "2027-01-15T13:00:00Z", "2027-01-15T20:00:00Z");
    spans(
        open("Europe/Berlin", &night, "2027-01-16T03:59:59.999Z"),
        "2027-01-15T21:00:00Z",
        "2027-01-16T04:00:00Z",
    );
    spans(
        open("Europe/Berlin", &night, "2027-01-16T04:00:00Z"),
        "2027-01-22T21:00:00Z",
        "2027-01-23T04:00:00Z",
    );
}

#[test]
fn windows_that_touch_are_one() {
    let windows = [window(&[Weekday::Sat], "00:00", "24:00"), window(&[Weekday::Sun], "00:00", "06:00")];
    let found = open_span(&windows, &Zone::utc(), ms("2027-01-15T08:00:00Z")).unwrap();
    assert_eq!(
        (written(found.from), written(found.until)),
        ("2027-01-16T00:00:00Z".into(), "2027-01-17T06:00:00Z".into())
    );
    let always = [window(&[], "00:00", "12:00"), window(&[], "12:00", "24:00")];
    let now = ms("2027-01-15T08:00:00Z");
    let found = open_span(&always, &Zone::utc(), now).unwrap();
    assert!(found.from.0 <= now.0 - 2 * 86_400_000 && found.until.0 >= now.0 + 14 * 86_400_000, "{found:?}");
}

#[test]
fn an_hour_that_is_left_out_is_missing_and_one_that_is_repeated_comes_twice() {
    // In Berlin 02:00 to 03:00 does not exist on 28 March 2027, and comes twice on 31 October 2027.
    let window = window(&[], "02:30", "04:00");
    let spring = open("Europe/Berlin", &window, "2027-03-28T00:00:00Z");
    spans(spring, "2027-03-28T01:00:00Z", "2027-03-28T02:00:00Z");
    let autumn = open("Europe/Berlin", &window, "2027-10-31T00:00:00Z");
    spans(autumn, "2027-10-31T00:30:00Z", "2027-10-31T01:00:00Z");
    let again = open("Europe/Berlin", &window, "2027-10-31T01:00:00Z");
    spans(again, "2027-10-31T01:30:00Z", "2027-10-31T03:00:00Z");
    // In New York 02:00 to 03:00 does not exist on 14 March 2027: a window in it is next on the day after.
    let swallowed = super::Window { to: "02:45".parse().unwrap(), ..window };
    let found = open("America/New_York", &swallowed, "2027-03-14T06:00:00Z");
    spans(found, "2027-03-15T06:30:00Z", "2027-03-15T06:45:00Z");
}

#[test]
fn only_times_of_a_day_are_times_of_a_day() {
    for text in ["00:00", "09:30", "23:59", "24:00"] {
        assert_eq!(text.parse::<LocalTime>().unwrap().to_string(), text);
    }
    for text in ["", "9:30", "24:01", "25:00", "10:60", "10:5", "+1:00", "10:00:00", "१०:००"] {
        assert!(text.parse::<LocalTime>().is_err(), "{text}");
    }
}

fn any_window() -> impl Strategy<Value = Window> {
    let days = prop::sample::subsequence(
        vec![
            Weekday::Mon,
            Weekday::Tue,
            Weekday::Wed,
            Weekday::Thu,
            Weekday::Fri,
            Weekday::Sat,
            Weekday::Sun,
        ],
        0..=7,
    );
    (days, 0..96_u16, 1..96_u16).prop_map(|(days, from, longer)| {
        let time = |quarters: u16| LocalTime { minutes: quarters % 96 * 15 };
        Window { days, from: time(from), to: time(from + longer) }
    })
}

/// Days on which the clocks are changed, and others.
const DAYS: [&str; 6] = [
    "2027-03-28T00:00:00Z",
    "2027-10-31T00:00:00Z",
    "2027-03-14T05:00:00Z",
    "2027-11-07T04:00:00Z",
    "2027-01-15T08:00:00Z",
    "2028-02-29T12:00:00Z",
];

proptest! {
    #[test]
    fn what_is_next_is_inside_a_window_and_nothing_inside_one_is_earlier(
        windows in prop::collection::vec(any_window(), 1..4),
        zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Asia/Seoul"]),
        day in prop::sample::select(DAYS.to_vec()),
        minutes in -2_000_i64..2_000,
    ) {
        let zone = Zone::named(zone).unwrap();
        let at = UnixMillis(ms(day).0 + minutes * 60_000);
        let is_open = |ms: i64| zone.are_open(&windows, Timestamp::from_millisecond(ms).unwrap());
        let span = open_span(&windows, &zone, at).unwrap();
        prop_assert!(is_open(span.from.0) && is_open(span.until.0 - 1));
        if is_open(at.0) {
            prop_assert!(span.from <= at && at < span.until);
        } else {
            prop_assert!(span.from > at && !is_open(span.from.0 - 1));
        }
        // All edges are at whole minutes: none is between two steps.
        let first = if span.from <= at { span.from.0 } else { at.0 };
        for ms in (first..span.until.0.min(first + 9 * 86_400_000)).step_by(60_000) {
            prop_assert_eq!(is_open(ms), ms >= span.from.0, "{}", written(UnixMillis(ms)));
        }
        let days = (span.until.0 - at.0) / 86_400_000;
        prop_assert!(days >= 14 || !is_open(span.until.0));
    }
}
