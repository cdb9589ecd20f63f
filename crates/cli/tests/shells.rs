//! What shells and `man` read of the command line: completions that work, pages without a warning, exit codes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: a panic is how it says what is wrong")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farrier"));
    for variable in ["FARRIER_SERVER", "FARRIER_TOKEN", "FARRIER_CA", "FARRIER_LOG"] {
        command.env_remove(variable);
    }
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

/// What bash offers behind these words, with this script of completions.
fn offered(script: &Path, words: &[&str]) -> Vec<String> {
    let (program, word) = (words.first().unwrap(), words.last().unwrap());
    let before = words.get(words.len() - 2).unwrap();
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let function = format!("_{}", program.replace('-', "__"));
    let asked = format!(
        "set -eu; source '{}'; COMP_WORDS=({}); COMP_CWORD={}; {function} '{program}' '{word}' '{before}'; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        quoted.join(" "),
        words.len() - 1
    );
    let output = Command::new("bash").args(["--norc", "-c", &asked]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options_of_both_programs() {
    let dir = tempfile::tempdir().unwrap();
    for (program, words, expected) in [
        ("farrier", ["farrier", "campaign", "sta"].as_slice(), "start"),
        ("farrier", ["farrier", "campaign", "start", "--ti"].as_slice(), "--timeout"),
        ("farrier", ["farrier", "token", "create", "--scope", ""].as_slice(), "viewer"),
        ("farrier-gateway", ["farrier-gateway", "sta"].as_slice(), "status"),
    ] {
        let output = run(&["completion", "bash", "--program", program]);
        assert!(output.status.success(), "{}", said(&output));
        let script = dir.path().join(program);
        std::fs::write(&script, &output.stdout).unwrap();
        let checked = Command::new("bash").arg("-n").arg(&script).output().unwrap();
        assert!(checked.status.success(), "{}", said(&checked));
        let offered = offered(&script, words);
        assert!(offered.iter().any(|word| word == expected), "{words:?}: {offered:?}");
    }
}

#[test]
fn other_shells_are_served_too_and_unknown_ones_are_named() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let output = run(&["completion", shell]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("open-wave"), "{shell}");
    }
    let output = run(&["completion", "tcsh"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("zsh"), "{}", said(&output));
}

#[test]
fn there_is_a_man_page_for_each_command_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let output = run(&["man", "--dir", pages.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    for page in ["farrier.1", "farrier-campaign-watch.1", "farrier-gateway.1", "farrier-gateway-status.1"] {
        assert!(pages.join(page).is_file(), "no {page}");
    }
    let single = run(&["man"]);
    assert_eq!(single.stdout, std::fs::read(pages.join("farrier.1")).unwrap());
    let mut all: Vec<_> = std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    assert!(all.len() > 60, "{}", all.len());
    // Each begins as the macros of man demand it.
    for page in &all {
        let text = std::fs::read_to_string(page).unwrap();
        assert!(text.contains("\n.TH ") && text.contains("\n.SH NAME"), "{}", page.display());
    }
    // groff says what is wrong with a page; where it is not installed, nobody can read them either.
    let Ok(output) = Command::new("groff").args(["-man", "-ww", "-z", "-K", "utf8"]).args(&all).output()
    else {
        return;
    };
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
}

#[test]
fn scripts_tell_kinds_of_trouble_apart_by_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "x").unwrap();
    let token = file.to_str().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (arguments, code, says) in [
        (["vehicle", "list", "--no-such-option"].as_slice(), 2, "--no-such-option"),
        (["campaign", "start", "c", "--timeout", "5s"].as_slice(), 2, "--wait"),
        (["campaign", "start", "c", "--wait", "--timeout", "soon"].as_slice(), 2, "45s"),
        (["vehicle", "list", "--token", "x", "--server", "ftp://x"].as_slice(), 2, "--server"),
        (["vehicle", "list"].as_slice(), 5, "FARRIER_TOKEN"),
        (["vehicle", "list", "--token-file", "/nowhere/token"].as_slice(), 5, "/nowhere/token"),
        (["vehicle", "list", "--token-file", token, "--server", &free].as_slice(), 6, "farrier server"),
        (["restore", "/nowhere/backup", "--data", "/nowhere/data"].as_slice(), 1, "/nowhere/backup"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(says), "{arguments:?}: {}", said(&output));
    }
    let help = run(&["--help"]);
    assert!(said(&help).contains("Exit codes:"), "{}", said(&help));
}
