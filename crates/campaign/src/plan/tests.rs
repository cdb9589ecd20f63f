use farrier_protocol::{FunctionalGroup, Placement};

use super::*;
use crate::delta::{Delta, DeltaSettings};

fn text(value: &str) -> Text {
    value.parse().unwrap()
}

fn ecu(id: &str, hardware: Option<&str>, version: Option<&str>, index: Option<u8>) -> EcuEntry {
    EcuEntry {
        ecu_id: id.parse().unwrap(),
        supplier_code: None,
        hw_part_no: hardware.map(text),
        sw_part_no: None,
        sw_version: version.map(text),
        bootloader_ver: None,
        calibration_id: None,
        mac_address: None,
        ip_address: None,
        can_id: None,
        functional_group: FunctionalGroup { placement: Placement::Domain(text("body")), index },
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

fn release(images: &[(&str, &str)]) -> Release {
    let image = |(hardware, version): &(&str, &str)| {
        Image::new(text(hardware), text(version), Sha256::of(hardware.as_bytes()), 1_000)
    };
    Release::new(images.iter().map(image).collect()).unwrap()
}

fn evaluated(vci: &SendVci, release: &Release) -> Evaluation {
    evaluate(vci, release, Deltas { ready: &[], settings: &DeltaSettings::default() })
}

fn planned(evaluation: Evaluation) -> Plan {
    match evaluation {
        Evaluation::Eligible(plan) => plan,
        other @ (Evaluation::UpToDate | Evaluation::Ineligible(_)) => {
            panic!("expected a plan, found {other:?}")
        }
    }
}

#[test]
fn outdated_ecus_of_the_releases_hardware_get_a_package_each() {
    let vci = vci(vec![
        ecu("a", Some("HW-1"), Some("1.0"), Some(3)),
        ecu("b", Some("HW-1"), Some("2.0"), Some(4)),
        ecu("c", Some("HW-9"), Some("1.0"), Some(9)),
        ecu("d", Some("HW-2"), Some("1.0"), Some(0)),
        ecu("e", Some("HW-2"), Some("1.1"), None),
    ]);
    let plan = planned(evaluated(&vci, &release(&[("HW-1", "2.0"), ("HW-2", "5.0")])));
    let summary: Vec<_> = plan
        .packages
        .iter()
        .map(|p| (p.pkg_id.as_str(), p.ecu_id.as_str(), p.earlier_version.as_str(), p.install_order))
        .collect();
    assert_eq!(
        summary,
        [("PKG-a-2.0", "a", "1.0", 3), ("PKG-d-5.0", "d", "1.0", 4), ("PKG-e-5.0", "e", "1.1", 4)]
    );
    assert_eq!((plan.ecu_count(), plan.size_bytes()), (3, 3_000));
}

#[test]
fn a_delta_travels_only_from_the_version_that_runs_and_only_if_clearly_smaller() {
    let release = release(&[("HW-1", "2.0")]);
    let image = release.images()[0].clone();
    let delta = |from: &str, size_bytes: u64| Delta {
        hw_part_no: text("HW-1"),
        from_version: text(from),
        image_sha256: image.sha256,
        sha256: Sha256::of(from.as_bytes()),
        size_bytes,
        compressed_image_bytes: 500,
    };
    let vci = vci(vec![ecu("a", Some("HW-1"), Some("1.0"), None)]);
    let settings = DeltaSettings::default();
    let package = |ready: &[Delta], settings: &DeltaSettings| {
        planned(evaluate(&vci, &release, Deltas { ready, settings })).packages.remove(0)
    };

    let by_delta = package(&[delta("0.9", 10), delta("1.0", 450)], &settings);
    assert_eq!(by_delta.delta_from, Some(text("1.0")));
    assert_eq!((by_delta.sha256, by_delta.size_bytes), (Sha256::of(b"1.0"), 450));
    assert_eq!((by_delta.image_sha256, by_delta.image_size_bytes), (image.sha256, 1_000));

    let full = package(&[], &settings);
    assert_eq!((full.delta_from.clone(), full.sha256, full.size_bytes), (None, image.sha256, 1_000));
    assert_eq!(package(&[delta("1.0", 451)], &settings), full, "not clearly smaller");
    assert_eq!(package(&[delta("0.9", 10)], &settings), full, "from another version");
    let of_other_hardware = Delta { hw_part_no: text("HW-2"), ..delta("1.0", 10) };
    let to_other_image = Delta { image_sha256: Sha256::of(b"other"), ..delta("1.0", 10) };
    assert_eq!(package(&[of_other_hardware, to_other_image], &settings), full);
    let from_another_image = Delta { sha256: Sha256::of(b"twin"), ..delta("1.0", 11) };
    assert_eq!(package(&[delta("1.0", 10), from_another_image], &settings), full, "from one of two images");
    let none = DeltaSettings { at_most_percent: 0, ..settings.clone() };
    assert_eq!(package(&[delta("1.0", 0)], &none), full, "switched off");
}

#[test]
fn a_vehicle_at_the_release_is_up_to_date() {
    let vci = vci(vec![ecu("a", Some("HW-1"), Some("2.0"), None), ecu("b", Some("HW-9"), Some("1"), None)]);
    assert_eq!(evaluated(&vci, &release(&[("HW-1", "2.0")])), Evaluation::UpToDate);
}

#[test]
fn every_reason_against_a_vehicle_is_named() {
    let vci = vci(vec![ecu("a", None, Some("2.0"), None), ecu("b", Some("HW-9"), None, None)]);
    assert_eq!(
        evaluated(&vci, &release(&[("HW-1", "2.0")])),
        Evaluation::Ineligible(vec![
            IneligibleReason::HardwareUnknown { ecu_id: "a".parse().unwrap() },
            IneligibleReason::NoMatchingHardware,
        ])
    );
    assert_eq!(
        evaluated(&vci, &release(&[("HW-9", "2.0")])),
        Evaluation::Ineligible(vec![
            IneligibleReason::HardwareUnknown { ecu_id: "a".parse().unwrap() },
            IneligibleReason::VersionUnknown { ecu_id: "b".parse().unwrap() },
        ])
    );
}

#[test]
fn package_names_are_valid_and_distinct_whatever_the_versions_are() {
    let long = "e".repeat(64);
    let vci = vci(vec![
        ecu("a-1", Some("HW-1"), Some("0"), None),
        ecu("a", Some("HW-2"), Some("0"), None),
        ecu("x", Some("HW-3"), Some("0"), None),
        ecu(&long, Some("HW-1"), Some("0"), None),
    ]);
    let release = release(&[("HW-1", "2"), ("HW-2", "1-2"), ("HW-3", "2.0 build/7")]);
    let names: BTreeSet<_> =
        planned(evaluated(&vci, &release)).packages.into_iter().map(|p| p.pkg_id).collect();
    assert_eq!(names.len(), 4);
    assert!(names.contains(&"PKG-a-1-2".parse().unwrap()));
}

#[test]
fn the_verdict_is_what_all_planned_ecus_run() {
    let before =
        vci(vec![ecu("a", Some("HW-1"), Some("1"), None), ecu("b", Some("HW-1"), Some("1.5"), None)]);
    let plan = planned(evaluated(&before, &release(&[("HW-1", "2")])));
    assert_eq!(verdict(&plan, &before), Verdict::AllEarlier);
    let after = vci(vec![ecu("b", Some("HW-1"), Some("2"), None), ecu("a", Some("HW-1"), Some("2"), None)]);
    assert_eq!(verdict(&plan, &after), Verdict::AllNew);
    let half = vci(vec![ecu("a", Some("HW-1"), Some("2"), None)]);
    let found = |id: &str, version: Option<&str>| FoundVersion {
        ecu_id: id.parse().unwrap(),
        version: version.map(text),
    };
    assert_eq!(verdict(&plan, &half), Verdict::Mixed(vec![found("a", Some("2")), found("b", None)]));
}

#[test]
fn two_images_for_one_hardware_or_none_at_all_are_no_release() {
    assert_eq!(Release::new(vec![]), Err(InvalidRelease::Empty));
    let images = release(&[("HW-1", "2")]).images().to_vec();
    let twice = [images.clone(), images].concat();
    assert!(matches!(Release::new(twice), Err(InvalidRelease::HardwareTwice { .. })));
}

use crate::release::InvalidRelease;
