//! Holds the map of `ARCHITECTURE.md`: which crate may use which, what a pure crate must not touch, and how
//! files are laid out. A change of the map is a change here, on purpose.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The arrows: each crate, and those of this workspace that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("farrier-protocol", &[]),
    ("farrier-campaign", &["farrier-protocol"]),
    ("farrier-vehicle-update", &["farrier-protocol"]),
    ("farrier-diagnostics", &[]),
    ("farrier-delta", &[]),
    ("farrier-server", &["farrier-protocol", "farrier-campaign", "farrier-delta"]),
    (
        "farrier-gateway",
        &["farrier-protocol", "farrier-vehicle-update", "farrier-diagnostics", "farrier-delta"],
    ),
    (
        "farrier-simulator",
        &["farrier-gateway", "farrier-vehicle-update", "farrier-diagnostics", "farrier-protocol"],
    ),
    (
        "farrier",
        &[
            "farrier-server",
            "farrier-simulator",
            "farrier-gateway",
            "farrier-campaign",
            "farrier-delta",
            "farrier-protocol",
        ],
    ),
    (
        "farrier-system-tests",
        &[
            "farrier",
            "farrier-campaign",
            "farrier-delta",
            "farrier-diagnostics",
            "farrier-gateway",
            "farrier-protocol",
            "farrier-server",
            "farrier-simulator",
            "farrier-vehicle-update",
        ],
    ),
];

/// The pure crates, and everything from outside that they may use.
/// Of `aws-lc-rs` they use digests, which are functions of their input; of `jiff` what a clock shows in a time zone at a given
/// time, by the tables that are compiled in.
const PURE: &[(&str, &[&str])] = &[
    ("farrier-protocol", &["aws-lc-rs", "schemars", "serde", "serde_json", "thiserror"]),
    ("farrier-campaign", &["jiff", "schemars", "serde", "thiserror"]),
    ("farrier-vehicle-update", &["serde", "serde_json", "thiserror"]),
    ("farrier-diagnostics", &["bytes", "serde", "simple_doip", "thiserror", "uds_protocol"]),
    ("farrier-delta", &["aws-lc-rs", "divsufsort", "thiserror", "zstd"]),
];

/// What the sources of a pure crate must not name: runtimes, sockets, files, clocks, chance, environment.
const IMPURE_NAMES: &[&str] = &[
    "tokio",
    "async fn",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "env::",
    "env!",
    "File::",
    "SystemTime",
    "Instant",
    "UNIX_EPOCH",
    "SystemRandom",
    "rand::",
    "getrandom",
    "rusqlite",
    "stdin",
    "stdout",
    "println!",
];

/// Names that contain an impure one and are values all the same.
const PURE_NAMES: &[&str] = &["std::net::IpAddr", "std::net::Ipv4Addr", "std::net::Ipv6Addr"];

struct Package {
    folder: PathBuf,
    /// Without development dependencies: tests may use what they like.
    dependencies: BTreeSet<String>,
}

fn workspace() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
            let manifest = Path::new(package["manifest_path"].as_str().expect("manifest_path"));
            let package_value = Package {
                folder: manifest.parent().expect("a folder").to_owned(),
                dependencies: dependencies
                    .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                    .map(|dependency| dependency["name"].as_str().expect("name").to_owned())
                    .collect(),
            };
            (package["name"].as_str().expect("name").to_owned(), package_value)
        })
        .collect()
}

fn source_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(source_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// `tests.rs`, and what stands below `tests/`.
fn is_of_tests(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem == "tests")
        || file.parent().is_some_and(|folder| folder.ends_with("tests"))
}

/// The impure names in a source, outside comments and its unit tests (which stand at its end).
fn impure_names(source: &str) -> Vec<(usize, &'static str)> {
    let lines = source.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    let mut found = Vec::new();
    for (number, line) in lines {
        let mut code = line.split("//").next().unwrap_or_default().to_owned();
        for pure in PURE_NAMES {
            code = code.replace(pure, "");
        }
        found
            .extend(IMPURE_NAMES.iter().filter(|name| code.contains(**name)).map(|name| (number + 1, *name)));
    }
    found
}

#[test]
fn crates_use_only_what_the_map_allows() {
    let packages = workspace();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let present: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    assert_eq!(known, present, "every crate stands on the map, and no other");
    for (name, allowed) in ARROWS {
        for dependency in &packages[*name].dependencies {
            let of_this_workspace = known.contains(dependency.as_str());
            assert!(
                !of_this_workspace || allowed.contains(&dependency.as_str()),
                "{name} must not use {dependency}"
            );
        }
    }
}

#[test]
fn arrows_never_turn_back() {
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    for (name, uses) in ARROWS.iter().filter(|(name, _)| *name != "farrier-system-tests") {
        assert!(uses.iter().all(|used| placed.contains(used)), "{name} uses a crate that stands above it");
        placed.insert(name);
    }
}

#[test]
fn pure_crates_use_nothing_from_outside_but_what_is_listed() {
    let packages = workspace();
    for (name, allowed) in PURE {
        for dependency in &packages[*name].dependencies {
            let pure =
                allowed.contains(&dependency.as_str()) || PURE.iter().any(|(pure, _)| pure == dependency);
            assert!(pure, "{name} is pure and must not use {dependency}");
        }
    }
}

#[test]
fn pure_crates_name_no_runtime_socket_file_clock_chance_or_environment() {
    let packages = workspace();
    let mut violations = Vec::new();
    for (name, _) in PURE {
        for file in source_files(&packages[*name].folder.join("src")) {
            if is_of_tests(&file) {
                continue;
            }
            let source = std::fs::read_to_string(&file).expect("a readable source");
            for (line, impure) in impure_names(&source) {
                violations.push(format!("{}:{line} names {impure}", file.display()));
            }
        }
    }
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn the_search_for_impure_names_finds_them() {
    let source = "use std::fs;\n// std::fs in a comment\nlet a: std::net::IpAddr;\nlet s = std::net::TcpStream;\n\
                  #[cfg(test)]\nmod tests { use std::fs; }";
    assert_eq!(impure_names(source), [(1, "std::fs"), (4, "std::net")]);
}

#[test]
fn files_and_crates_are_named_for_what_they_own() {
    let vague = ["common", "utils", "util", "helpers", "helper", "manager", "misc"];
    for (name, package) in workspace() {
        assert!(!vague.iter().any(|word| name.split('-').any(|part| part == *word)), "{name}");
        for file in source_files(&package.folder) {
            let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            assert!(stem != "mod", "{}: thing.rs beside thing/, not mod.rs", file.display());
            assert!(!vague.contains(&stem.as_str()), "{}", file.display());
        }
    }
}
