use askama::Template;
use proptest::prelude::*;

use super::*;
use crate::console::texts::ENGLISH;

const START: i64 = 1_764_121_500_000;

fn plot(unit: Unit, values: Vec<Vec<Option<u64>>>) -> Plot {
    let times = (0..values[0].len()).map(|number| UnixMillis(START + number as i64 * 600_000)).collect();
    let series = values.into_iter().enumerate().map(|(number, values)| Series {
        name: format!("line {number}"),
        class: "run",
        is_filled: number == 0,
        values,
    });
    Plot { id: "c", title: "Title", note: "Note", unit, times, series: series.collect() }
}

fn drawn(unit: Unit, values: &[u64]) -> Chart {
    plot(unit, vec![values.iter().copied().map(Some).collect()]).drawn(&ENGLISH).unwrap()
}

fn labels(ticks: &[Tick]) -> Vec<&str> {
    ticks.iter().map(|tick| tick.label.as_str()).collect()
}

#[test]
fn ticks_stand_at_round_numbers() {
    assert_eq!(labels(&drawn(Unit::Number, &[0, 0]).values), ["0", "1"]);
    assert_eq!(labels(&drawn(Unit::Number, &[0, 3]).values), ["0", "1", "2", "3"]);
    assert_eq!(labels(&drawn(Unit::Number, &[7, 93]).values), ["0", "50", "100"]);
    assert_eq!(labels(&drawn(Unit::Number, &[0, 99_000]).values), ["0", "50k", "100k"]);
    assert_eq!(labels(&drawn(Unit::Number, &[0, 9_000_000]).values), ["0", "5M", "10M"]);
    let gigabytes = drawn(Unit::Bytes, &[0, 12_400_000_000]);
    assert_eq!(labels(&gigabytes.values), ["0 B", "5 GB", "10 GB", "15 GB"]);
}

#[test]
fn times_are_named_as_far_as_it_is_needed() {
    let at = |hours: i64| UnixMillis(START - START % 86_400_000 + hours * 3_600_000);
    let ticks = |until: i64| time_ticks(&Scale { from: at(0), until: at(until), top: 1 });
    assert_eq!(labels(&ticks(4)), ["01:00", "02:00", "03:00", "04:00"]);
    assert_eq!(labels(&ticks(26)), ["06:00", "12:00", "18:00", "11-27"]);
    assert_eq!(labels(&ticks(24 * 7)), ["11-28", "11-30", "12-02"]);
    assert_eq!(ticks(4).last().unwrap().anchor, "end");
}

#[test]
fn lines_differ_by_more_than_their_colour_and_leave_out_what_is_not_known() {
    let chart = plot(
        Unit::Number,
        vec![vec![Some(10), Some(0), Some(5)], vec![Some(1), None, Some(2)], vec![None, None, None]],
    );
    let chart = chart.drawn(&ENGLISH).unwrap();
    let [first, second] = chart.lines.as_slice() else { panic!("{:?}", chart.lines) };
    assert_eq!(first.path, "M60,12L263,184L466,98");
    assert_eq!(first.area.as_deref(), Some("M60,184L60,12L263,184L466,98L466,184z"));
    assert_eq!(second.path, "M60,166.8M466,149.6");
    assert_eq!((&*second.end.0, &*second.end.1, &*second.latest), ("466", "149.6", "2"));
    assert!(first.dash != second.dash && first.mark != second.mark);
}

#[test]
fn what_is_drawn_can_be_read_too() {
    let chart = drawn(Unit::Bytes, &[1_000, 2_000_000]);
    assert_eq!(
        chart.description,
        "2025-11-26 01:45:00 UTC to 2025-11-26 01:55:00 UTC; latest: line 0 2.0 MB; highest 2.0 MB."
    );
    assert_eq!(
        chart.rows,
        [
            ("2025-11-26 01:55:00 UTC".to_owned(), vec!["2.0 MB".to_owned()]),
            ("2025-11-26 01:45:00 UTC".to_owned(), vec!["1.0 KB".to_owned()])
        ]
    );
}

#[test]
fn one_time_alone_is_no_chart() {
    assert!(plot(Unit::Number, vec![vec![Some(1)]]).drawn(&ENGLISH).is_none());
    let mut none = plot(Unit::Number, vec![vec![Some(1)]]);
    none.times.clear();
    assert!(none.drawn(&ENGLISH).is_none());
}

#[derive(Template)]
#[template(path = "chart.html")]
struct Shown<'a> {
    t: &'static Texts,
    chart: &'a Chart,
}

#[test]
fn names_of_others_are_text_in_the_drawing() {
    let mut plot = plot(Unit::Number, vec![vec![Some(1), Some(2)]]);
    plot.series[0].name = "<b>\"x".to_owned();
    let chart = plot.drawn(&ENGLISH).unwrap();
    let html = Shown { t: &ENGLISH, chart: &chart }.render().unwrap();
    assert!(!html.contains("<b>") && html.contains("&#60;b&#62;"), "{html}");
    assert!(html.contains("<title id=\"c-title\">Title</title>") && html.contains("<details"), "{html}");
    assert!(!html.contains("style="), "{html}");
}

proptest! {
    #[test]
    fn whatever_comes_stays_inside_the_drawing(
        values in prop::collection::vec(prop::option::of(any::<u64>()), 2..400)
    ) {
        let number = values.len();
        let last = values.iter().flatten().next_back().copied();
        let at_the_end = values.last().copied().flatten();
        let Some(chart) = plot(Unit::Number, vec![values]).drawn(&ENGLISH) else {
            return Err(TestCaseError::fail("nothing drawn"));
        };
        prop_assert!(chart.rows.len() <= number.min(MOST_TIMES + 1));
        prop_assert!(chart.values.len() <= 6 && chart.times.len() <= 6);
        for line in &chart.lines {
            for point in line.path.split(['M', 'L']).filter(|point| !point.is_empty()) {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                prop_assert!((LEFT as f64..=RIGHT as f64).contains(&x), "{}", point);
                prop_assert!((TOP as f64..=BOTTOM as f64).contains(&y), "{}", point);
            }
            prop_assert!(last.is_some());
            if let Some(value) = at_the_end {
                prop_assert_eq!(&line.latest, &number_of(value));
            }
        }
    }
}

fn number_of(value: u64) -> String {
    crate::console::format::number(value)
}
