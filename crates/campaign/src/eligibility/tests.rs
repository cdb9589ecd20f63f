use std::collections::BTreeSet;

use farrier_protocol::{FunctionalGroup, Placement, Sha256};
use proptest::prelude::*;

use super::*;
use crate::delta::{DeltaSettings, Deltas};
use crate::plan::{Evaluation, Plan, evaluate};
use crate::rules::ReleaseRules;
use crate::version::VersionScheme;

fn text(value: &str) -> Text {
    value.parse().unwrap()
}

fn texts(values: &[&str]) -> Vec<Text> {
    values.iter().map(|value| text(value)).collect()
}

/// `hardware version`, where `?` stands for what the ECU does not report.
fn ecu(id: &str, hardware: &str, version: &str) -> EcuEntry {
    let reported = |value: &str| Some(value).filter(|value| *value != "?").map(text);
    EcuEntry {
        ecu_id: id.parse().unwrap(),
        supplier_code: None,
        hw_part_no: reported(hardware),
        sw_part_no: None,
        sw_version: reported(version),
        bootloader_ver: None,
        calibration_id: None,
        mac_address: None,
        ip_address: None,
        can_id: None,
        functional_group: FunctionalGroup { placement: Placement::Domain(text("body")), index: None },
    }
}

fn vci(ecus: Vec<EcuEntry>) -> SendVci {
    SendVci {
        correlation_id: "SRV-1".parse().unwrap(),
        region: None,
        fw_sw_version: text("1.0"),
        bootloader_ver: None,
        ecu_inventory: ecus,
        power: None,
    }
}

fn image(hardware: &str, version: &str) -> Image {
    Image::new(text(hardware), text(version), Sha256::of(hardware.as_bytes()), 1_000)
}

/// Brings A to 2, B to 2 and C to 2.
fn release(scheme: Option<VersionScheme>, rules: Vec<Rule>) -> Release {
    let images = ["A", "B", "C"].map(|hardware| image(hardware, "2")).to_vec();
    Release::with_rules(images, ReleaseRules { scheme, rules, ..ReleaseRules::default() }).unwrap()
}

fn evaluated(vci: &SendVci, release: &Release) -> Evaluation {
    evaluate(vci, release, Deltas { ready: &[], settings: &DeltaSettings::default() })
}

/// The phrases of the reasons; `up to date` or nothing where there are none.
fn outcome(vci: &SendVci, release: &Release) -> Vec<String> {
    match evaluated(vci, release) {
        Evaluation::Ineligible(reasons) => reasons.iter().map(IneligibleReason::phrase).collect(),
        Evaluation::UpToDate => vec!["up to date".to_owned()],
        Evaluation::Eligible(_) => Vec::new(),
    }
}

/// ECUs e1, e2, … of these hardwares and versions, held against one rule, with versions as dotted numbers.
fn under(rule: &Rule, ecus: &[(&str, &str)]) -> Vec<String> {
    let ecus =
        ecus.iter().enumerate().map(|(at, (hardware, version))| ecu(&format!("e{at}"), hardware, version));
    outcome(&vci(ecus.collect()), &release(Some(VersionScheme::Dotted), vec![rule.clone()]))
}

type Case<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);

fn table(rule: &Rule, cases: &[Case<'_>]) {
    for (ecus, expected) in cases {
        assert_eq!(under(rule, ecus), *expected, "{} with {ecus:?}", rule.phrase());
    }
}

#[test]
fn what_an_update_needs_counts_as_it_will_be() {
    let needs = |part: &str, when_updating: Option<&[&str]>| Rule::Needs {
        hw_part_no: text(part),
        when_updating: when_updating.map(texts),
        at_least: text("1.5"),
    };
    table(
        &needs("X", None),
        &[
            (&[("A", "1"), ("X", "1.5")], &[]),
            (&[("A", "1"), ("X", "2")], &[]),
            (&[("A", "2"), ("X", "1")], &["up to date"]),
            (&[("A", "1")], &["the release needs X at 1.5 or later, and no ECU has this hardware"]),
            (&[("A", "1"), ("X", "1.4")], &["the release needs X at 1.5 or later, and it would be e1 1.4"]),
            (&[("A", "1"), ("X", "?")], &["the release needs X at 1.5 or later, and it would be e1 unknown"]),
            (
                &[("A", "1"), ("X", "rc")],
                &["ECU e1 reports rc, which is not numbers between dots such as 3.12.7"],
            ),
            (
                &[("A", "1"), ("X", "1.2"), ("X", "1.6"), ("X", "1.1")],
                &["the release needs X at 1.5 or later, and it would be e1 1.2, e3 1.1"],
            ),
        ],
    );
    table(
        &needs("B", Some(&["A"])),
        &[
            (&[("A", "1"), ("B", "1")], &[]),
            (&[("A", "1")], &["the release needs B at 1.5 or later, and no ECU has this hardware"]),
            (&[("C", "1")], &[]),
        ],
    );
}

#[test]
fn what_a_release_does_not_go_with_counts_as_it_will_be() {
    let conflicts = |part: &str, from: Option<&str>, to: Option<&str>| Rule::Conflicts {
        hw_part_no: text(part),
        from: from.map(text),
        to: to.map(text),
    };
    let both =
        |found: &str| format!("the release does not go with X at 1.1 to 1.3, and ECU e1 would run {found}");
    table(
        &conflicts("X", Some("1.1"), Some("1.3")),
        &[
            (&[("A", "1")], &[]),
            (&[("A", "1"), ("X", "1.0.9")], &[]),
            (&[("A", "1"), ("X", "1.1")], &[&both("1.1")]),
            (&[("A", "1"), ("X", "1.2")], &[&both("1.2")]),
            (&[("A", "1"), ("X", "1.3.0")], &[&both("1.3.0")]),
            (&[("A", "1"), ("X", "1.3.1")], &[]),
            (&[("A", "2"), ("X", "1.2")], &["up to date"]),
            (&[("A", "1"), ("X", "?")], &["ECU e1 does not report its sw_version"]),
            (
                &[("A", "1"), ("X", "rc")],
                &["ECU e1 reports rc, which is not numbers between dots such as 3.12.7"],
            ),
        ],
    );
    table(
        &conflicts("X", None, None),
        &[
            (&[("A", "1")], &[]),
            (
                &[("A", "1"), ("X", "?")],
                &["the release does not go with X at any version, and ECU e1 would run unknown"],
            ),
        ],
    );
    table(&conflicts("B", None, Some("1")), &[(&[("A", "1"), ("B", "1")], &[])]);
    table(
        &conflicts("B", Some("2"), None),
        &[(
            &[("B", "1"), ("A", "1")],
            &["the release does not go with B at 2 or later, and ECU e0 would run 2"],
        )],
    );
}

#[test]
fn what_is_updated_together_is_all_there_or_none_is_updated() {
    let missing = "A and B are updated together, and no ECU has B";
    table(
        &Rule::Together { hw_part_nos: texts(&["A", "B"]) },
        &[
            (&[("A", "1"), ("B", "1")], &[]),
            (&[("A", "1"), ("B", "2")], &[]),
            (&[("A", "1")], &[missing]),
            (&[("A", "2")], &["up to date"]),
            (&[("A", "2"), ("C", "1")], &[]),
            (&[("A", "1"), ("B", "?")], &["ECU e1 does not report its sw_version"]),
            (&[("A", "1"), ("B", "3")], &["ECU e1 runs 3, which is later than 2 of the release"]),
        ],
    );
}

#[test]
fn a_bootloader_must_be_reported_and_new_enough_where_its_ecu_is_updated() {
    let rule = Rule::MinimumBootloader { hw_part_no: text("A"), version: text("5") };
    let release = release(Some(VersionScheme::Dotted), vec![rule]);
    let with = |version: &str, bootloader: Option<&str>| {
        let updated = EcuEntry { bootloader_ver: bootloader.map(text), ..ecu("e1", "A", version) };
        outcome(&vci(vec![updated, ecu("e2", "B", "1")]), &release)
    };
    assert!(
        with("1", Some("5")).is_empty() && with("1", Some("5.1")).is_empty() && with("2", None).is_empty()
    );
    assert_eq!(with("1", Some("4.9")), ["ECU e1 needs its bootloader at 5 or later and has 4.9"]);
    assert_eq!(with("1", None), ["ECU e1 needs its bootloader at 5 or later and does not report it"]);
    assert_eq!(with("1", Some("B")), ["ECU e1 reports B, which is not numbers between dots such as 3.12.7"]);
}

#[test]
fn an_ecu_is_updated_only_from_the_versions_that_are_named() {
    let rule = Rule::EarlierVersions { hw_part_no: text("A"), versions: texts(&["1.0", "1.1"]) };
    table(
        &rule,
        &[
            (&[("A", "1.0")], &[]),
            (&[("A", "1.1"), ("B", "1.9")], &[]),
            (&[("A", "1.2")], &["ECU e0 runs 1.2 and can be updated only from 1.0 or 1.1"]),
            (&[("A", "2")], &["up to date"]),
        ],
    );
}

#[test]
fn an_ecu_with_a_later_version_is_left_alone_unless_the_release_says_otherwise() {
    let vehicle = vci(vec![ecu("e1", "A", "2.1"), ecu("e2", "B", "legacy")]);
    let with = |scheme: Option<VersionScheme>, allow_downgrade: bool| {
        let rules = ReleaseRules { scheme, allow_downgrade, ..ReleaseRules::default() };
        let images = vec![image("A", "2"), image("B", "2")];
        outcome(&vehicle, &Release::with_rules(images, rules).unwrap())
    };
    assert_eq!(
        with(Some(VersionScheme::Dotted), false),
        [
            "ECU e1 runs 2.1, which is later than 2 of the release",
            "ECU e2 reports legacy, which is not numbers between dots such as 3.12.7"
        ]
    );
    assert!(with(Some(VersionScheme::Dotted), true).is_empty());
    assert!(with(None, false).is_empty(), "without a scheme nothing says which is later");
}

#[test]
fn an_ecu_gets_the_image_for_its_supplier_and_region() {
    let korean = Image { region: Some(text("KR")), ..image("A", "2-kr") };
    let release = Release::new(vec![image("B", "2"), korean.clone()]).unwrap();
    let vehicle = |region: Option<&str>| SendVci {
        region: region.map(text),
        ..vci(vec![ecu("e1", "A", "1"), ecu("e2", "B", "1")])
    };
    assert!(outcome(&vehicle(Some("KR")), &release).is_empty());
    assert_eq!(
        outcome(&vehicle(None), &release),
        ["no image for the hardware of ECU e1 is for supplier unknown in region unknown"]
    );
    let release = Release::new(vec![korean, image("A", "2")]).unwrap();
    let planned = |region| match evaluated(&vehicle(region), &release) {
        Evaluation::Eligible(plan) => plan.packages[0].version.to_string(),
        other @ (Evaluation::UpToDate | Evaluation::Ineligible(_)) => panic!("{other:?}"),
    };
    assert_eq!([planned(Some("KR")), planned(Some("EU")), planned(None)], ["2-kr", "2", "2"]);
}

#[test]
fn every_reason_is_given_and_none_twice() {
    let needs = |when_updating: &str| Rule::Needs {
        hw_part_no: text("X"),
        when_updating: Some(texts(&[when_updating])),
        at_least: text("5"),
    };
    let rules = vec![
        needs("A"),
        needs("B"),
        Rule::Together { hw_part_nos: texts(&["A", "C"]) },
        Rule::EarlierVersions { hw_part_no: text("A"), versions: texts(&["1"]) },
    ];
    let vehicle =
        vci(vec![ecu("e3", "?", "1"), ecu("e2", "B", "1"), ecu("e1", "A", "3"), ecu("e4", "X", "y")]);
    let found = match evaluated(&vehicle, &release(Some(VersionScheme::Dotted), rules)) {
        Evaluation::Ineligible(reasons) => reasons,
        other @ (Evaluation::UpToDate | Evaluation::Eligible(_)) => panic!("{other:?}"),
    };
    assert_eq!(
        found.iter().map(IneligibleReason::code).collect::<Vec<_>>(),
        [
            "HARDWARE_UNKNOWN",
            "DOWNGRADE",
            "VERSION_NOT_IN_SCHEME",
            "TOGETHER_INCOMPLETE",
            "EARLIER_VERSION_NOT_ALLOWED"
        ]
    );
}

#[test]
fn order_rules_put_whole_rounds_of_indices_one_after_another() {
    let rules = ["A", "B"].map(|first| Rule::Order { first: text(first), then: text("C") }).to_vec();
    let placed = |id: &str, hardware: &str, index: Option<u8>| {
        let mut entry = ecu(id, hardware, "1");
        entry.functional_group.index = index;
        entry
    };
    let vehicle = vci(vec![
        placed("e1", "C", Some(1)),
        placed("e2", "C", None),
        placed("e3", "A", Some(4)),
        placed("e4", "B", None),
    ]);
    let orders = |rules: Vec<Rule>| match evaluated(&vehicle, &release(None, rules)) {
        Evaluation::Eligible(plan) => {
            plan.packages.iter().map(|package| package.install_order).collect::<Vec<_>>()
        }
        other @ (Evaluation::UpToDate | Evaluation::Ineligible(_)) => panic!("{other:?}"),
    };
    assert_eq!(orders(Vec::new()), [1, 5, 4, 5]);
    assert_eq!(orders(rules), [6, 10, 4, 5]);
}

const HARDWARE: [&str; 5] = ["A", "B", "C", "X", "?"];

fn any_hardware(of: usize) -> impl Strategy<Value = Text> {
    prop::sample::select(HARDWARE[..of].to_vec()).prop_map(text)
}

fn any_version() -> impl Strategy<Value = Text> {
    (1..5_u8).prop_map(|version| text(&version.to_string()))
}

fn any_rule() -> impl Strategy<Value = Rule> {
    prop_oneof![
        (any_hardware(4), prop::option::of(prop::collection::vec(any_hardware(3), 1..3)), any_version())
            .prop_map(|(hw_part_no, when_updating, at_least)| Rule::Needs {
                hw_part_no,
                when_updating,
                at_least
            }),
        (any_hardware(4), prop::option::of(any_version()), prop::option::of(any_version()))
            .prop_filter("a range", |(_, from, to)| from.is_none() || to.is_none() || from <= to)
            .prop_map(|(hw_part_no, from, to)| Rule::Conflicts { hw_part_no, from, to }),
        (any_hardware(3), any_hardware(3))
            .prop_filter("two", |(one, other)| one != other)
            .prop_map(|(one, other)| Rule::Together { hw_part_nos: vec![one, other] }),
        (any_hardware(3), any_hardware(3)).prop_map(|(first, then)| Rule::Order { first, then }),
        (any_hardware(3), any_version())
            .prop_map(|(hw_part_no, version)| Rule::MinimumBootloader { hw_part_no, version }),
        (any_hardware(3), prop::collection::vec(any_version(), 1..4))
            .prop_map(|(hw_part_no, versions)| Rule::EarlierVersions { hw_part_no, versions }),
    ]
}

/// Mostly hardware and versions that a plan can be made from.
fn any_ecus() -> impl Strategy<Value = Vec<EcuEntry>> {
    let hardware = prop_oneof![20 => 0..4_usize, 1 => Just(4_usize)].prop_map(|at| HARDWARE[at]);
    let version = prop_oneof![30 => (1..5_u8).prop_map(|v| v.to_string()), 1 => Just("?".to_owned()), 1 => Just("v1".to_owned())];
    let bootloader = prop_oneof![8 => (1..5_u8).prop_map(|v| Some(v.to_string())), 1 => Just(None)];
    let one = (hardware, version, bootloader, prop::option::of(0..4_u8));
    prop::collection::vec(one, 1..6).prop_map(|ecus| {
        let entry =
            |(at, (hardware, version, bootloader, index)): (usize, (&str, String, Option<String>, _))| {
                let mut entry = ecu(&format!("e{at}"), hardware, &version);
                entry.bootloader_ver = bootloader.as_deref().map(text);
                entry.functional_group.index = index;
                entry
            };
        ecus.into_iter().enumerate().map(entry).collect()
    })
}

fn any_release() -> impl Strategy<Value = Release> {
    let versions = (any_version(), any_version(), any_version());
    (versions, any::<bool>(), prop::collection::vec(any_rule(), 0..4)).prop_filter_map(
        "no circle",
        |((a, b, c), allow_downgrade, rules)| {
            let images = [("A", a), ("B", b), ("C", c)].map(|(part, version)| image(part, version.as_str()));
            let scheme = Some(VersionScheme::Dotted);
            let rules = ReleaseRules { scheme, allow_downgrade, rules, ..ReleaseRules::default() };
            Release::with_rules(images.to_vec(), rules).ok()
        },
    )
}

/// The rule, said once more in plain words over what runs after the plan; versions have one digit here.
fn keeps(rule: &Rule, plan: &Plan, vehicle: &[EcuEntry]) -> bool {
    let planned = |ecu: &EcuEntry| plan.packages.iter().find(|package| package.ecu_id == ecu.ecu_id);
    let with =
        |part: &Text| vehicle.iter().filter(|ecu| ecu.hw_part_no.as_ref() == Some(part)).collect::<Vec<_>>();
    let updated =
        |part: &Text| with(part).into_iter().filter(|ecu| planned(ecu).is_some()).collect::<Vec<_>>();
    let after =
        |ecu: &EcuEntry| planned(ecu).map(|package| package.version.clone()).or(ecu.sw_version.clone());
    let plain = |version: &Text| version.as_str().parse::<u8>().ok();
    match rule {
        Rule::Needs { hw_part_no, when_updating, at_least } => {
            let parts: BTreeSet<_> = plan.packages.iter().map(|package| &package.hw_part_no).collect();
            let concerned =
                when_updating.as_ref().is_none_or(|when| when.iter().any(|part| parts.contains(part)));
            let meets = |ecu: &EcuEntry| after(ecu).is_some_and(|version| plain(&version) >= plain(at_least));
            let needed = with(hw_part_no);
            !concerned || (!needed.is_empty() && needed.into_iter().all(meets))
        }
        Rule::Conflicts { hw_part_no, from: None, to: None } => with(hw_part_no).is_empty(),
        Rule::Conflicts { hw_part_no, from, to } => with(hw_part_no).into_iter().all(|ecu| {
            let version = after(ecu).and_then(|version| plain(&version)).unwrap();
            let low = from.as_ref().and_then(plain).unwrap_or(0);
            let high = to.as_ref().and_then(plain).unwrap_or(u8::MAX);
            version < low || version > high
        }),
        Rule::Together { hw_part_nos } => {
            let all_there = hw_part_nos.iter().all(|part| !with(part).is_empty());
            all_there || hw_part_nos.iter().all(|part| updated(part).is_empty())
        }
        Rule::Order { first, then } => {
            let orders = |part: &Text| {
                let packages = plan.packages.iter().filter(|package| package.hw_part_no == *part);
                packages.map(|package| package.install_order).collect::<Vec<_>>()
            };
            orders(first).iter().all(|early| orders(then).iter().all(|late| early < late))
        }
        Rule::MinimumBootloader { hw_part_no, version } => updated(hw_part_no)
            .into_iter()
            .all(|ecu| ecu.bootloader_ver.as_ref().is_some_and(|found| plain(found) >= plain(version))),
        Rule::EarlierVersions { hw_part_no, versions } => updated(hw_part_no)
            .into_iter()
            .all(|ecu| ecu.sw_version.as_ref().is_some_and(|running| versions.contains(running))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_plan_keeps_every_rule_and_brings_every_ecu_to_the_release(ecus in any_ecus(), release in any_release()) {
        let vehicle = vci(ecus);
        if let Evaluation::Eligible(plan) = evaluated(&vehicle, &release) {
            for rule in &release.rules().rules {
                prop_assert!(keeps(rule, &plan, &vehicle.ecu_inventory), "{} by {plan:?}", rule.phrase());
            }
            for package in &plan.packages {
                prop_assert!(release.rules().allow_downgrade || package.earlier_version < package.version);
            }
            let mut updated = vehicle.clone();
            for ecu in &mut updated.ecu_inventory {
                if let Some(package) = plan.packages.iter().find(|package| package.ecu_id == ecu.ecu_id) {
                    ecu.sw_version = Some(package.version.clone());
                }
            }
            prop_assert_eq!(evaluated(&updated, &release), Evaluation::UpToDate);
        }
    }

    #[test]
    fn the_order_of_the_inventory_does_not_matter(
        (ecus, shuffled) in any_ecus().prop_flat_map(|ecus| (Just(ecus.clone()), Just(ecus).prop_shuffle())),
        release in any_release(),
    ) {
        let by_ecu = |evaluation| match evaluation {
            Evaluation::Eligible(mut plan) => {
                plan.packages.sort_by(|one, other| one.ecu_id.cmp(&other.ecu_id));
                Evaluation::Eligible(plan)
            }
            other @ (Evaluation::UpToDate | Evaluation::Ineligible(_)) => other,
        };
        prop_assert_eq!(by_ecu(evaluated(&vci(ecus), &release)), by_ecu(evaluated(&vci(shuffled), &release)));
    }

    #[test]
    fn a_vehicle_without_a_reason_is_judged_as_without_rules(ecus in any_ecus(), release in any_release()) {
        let plain = Release::new(release.images().to_vec()).unwrap();
        let codes = |evaluation| match evaluation {
            Evaluation::Ineligible(reasons) => reasons,
            Evaluation::UpToDate | Evaluation::Eligible(_) => Vec::new(),
        };
        let vehicle = vci(ecus);
        let (with, without) = (evaluated(&vehicle, &release), evaluated(&vehicle, &plain));
        if without == Evaluation::UpToDate {
            prop_assert_eq!(&with, &without);
        }
        let found = codes(with);
        prop_assert!(codes(without).iter().all(|reason| found.contains(reason)));
    }
}
