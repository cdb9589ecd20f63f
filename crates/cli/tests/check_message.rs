//! `farrier check-message` as authors of gateways use it: one line, and an exit code.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: a panic is how it says what is wrong, in its helpers too"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn farrier(arguments: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_farrier"))
        .arg("check-message")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may have refused its arguments and gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn vectors(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/tests/vectors").join(folder);
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn line(output: &Output) -> Value {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn an_accepted_message_gives_its_type_and_exit_code_0() {
    let file = vectors("accepted").into_iter().find(|file| file.ends_with("send_vci_seed_1.json")).unwrap();
    let output = farrier(&["--topic", "vci", file.to_str().unwrap()], b"");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\"accepted\":true,\"type\":\"SendVCI\"}\n");
}

#[test]
fn every_refused_vector_gives_its_code_and_pointer_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let command_file = folder.path().join("command.json");
    for file in vectors("refused") {
        let vector: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let mut arguments = vec!["--topic", vector["topic"].as_str().unwrap()];
        if let Some(command) = vector.get("in_reply_to").filter(|command| !command.is_null()) {
            std::fs::write(&command_file, command.to_string()).unwrap();
            arguments.extend(["--in-reply-to", command_file.to_str().unwrap()]);
        }
        arguments.push("-");
        let Some(raw) = vector["raw"].as_str() else { continue };
        let output = farrier(&arguments, raw.as_bytes());
        assert_eq!(output.status.code(), Some(1), "{}", file.display());
        let line = line(&output);
        assert_eq!(line["accepted"], false, "{}", file.display());
        assert_eq!(line["code"], vector["expect"], "{}: {line}", file.display());
        if let Some(pointer) = vector.get("pointer") {
            assert_eq!(line["pointer"], *pointer, "{}: {line}", file.display());
        }
        assert!(line["expected"].is_string() && line["found"].is_string(), "{line}");
    }
}

#[test]
fn what_cannot_be_checked_gives_exit_code_2_and_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let no_command = folder.path().join("no-command.json");
    std::fs::write(&no_command, "{}").unwrap();
    let no_command = no_command.to_str().unwrap();
    for (arguments, says) in [
        (vec!["--topic", "vci", "/nowhere/message.json"], "/nowhere/message.json"),
        (vec!["--topic", "vci", "--in-reply-to", "/nowhere/command.json", "-"], "/nowhere/command.json"),
        (vec!["--topic", "vci", "--in-reply-to", no_command, "-"], "no command of the server"),
        (vec!["--topic", "down", "--in-reply-to", no_command, "-"], "--topic down"),
        (vec!["--topic", "upwards", "-"], "wakeup"),
        (vec!["-"], "--topic"),
    ] {
        let output = farrier(&arguments, b"{}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty() && stderr.contains(says), "{arguments:?}: {stderr}");
    }
}

#[test]
fn an_endless_message_is_refused_without_being_read_to_its_end() {
    let output = farrier(&["--topic", "wakeup", "/dev/zero"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(line(&output)["code"], "TOO_LARGE");
}
