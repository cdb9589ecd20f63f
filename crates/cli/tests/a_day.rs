//! Runs every command of "A day with Farrier" in docs/operations.md as it stands there, in one shell, and compares what they
//! print with what the page shows.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test: a panic is how it says what is wrong")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

const SECTION: &str = "## A day with Farrier";

/// No block takes so long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(150);

/// What the page tells to run, and what it says that is printed; nothing, where it says nothing.
struct Block {
    line: usize,
    commands: String,
    shown: Option<String>,
}

/// The `sh` blocks of the section with the `text` blocks right behind them.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut fence: Option<(String, String)> = None;
    let section = page.lines().enumerate().skip_while(|(_, line)| *line != SECTION);
    let inside = |(_, line): &(usize, &str)| !line.starts_with("## ") || *line == SECTION;
    let mut is_in_fence = false;
    let section = section.take_while(|numbered| {
        is_in_fence ^= numbered.1.starts_with("```");
        is_in_fence || inside(numbered)
    });
    for (number, line) in section {
        match (&mut fence, line.strip_prefix("```")) {
            (None, Some(language)) => fence = Some((language.to_owned(), String::new())),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
            (Some(_), Some(_)) => {
                let (language, text) = fence.take().unwrap();
                match language.as_str() {
                    "sh" => blocks.push(Block { line: number, commands: text, shown: None }),
                    "text" => blocks.last_mut().unwrap().shown = Some(text),
                    other => panic!("line {number}: expected a block of sh or text, found {other:?}"),
                }
            }
        }
    }
    blocks
}

/// `…` stands for anything within a line, and alone in a line for any lines, none too.
fn fits(shown: &[String], printed: &[String]) -> bool {
    match (shown.split_first(), printed.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((line, rest)), _) if line == "…" => {
            fits(rest, printed) || printed.split_first().is_some_and(|(_, later)| fits(shown, later))
        }
        (Some(_), None) => false,
        (Some((line, rest)), Some((found, later))) => fits_line(line, found) && fits(rest, later),
    }
}

fn fits_line(shown: &str, printed: &str) -> bool {
    let mut parts = shown.split('…');
    let first = parts.next().unwrap();
    let Some(mut left) = printed.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return left.is_empty() };
    for part in parts {
        match left.split_once(part) {
            Some((_, behind)) => left = behind,
            None => return false,
        }
    }
    left.ends_with(last)
}

/// Columns are as wide as what stands in them, which differs: blanks count as one, and none before a line.
fn lines(text: &str) -> Vec<String> {
    let squeezed = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    squeezed.filter(|line| !line.is_empty()).collect()
}

/// A shell, and whatever it started; all of them end with the test.
struct Shell {
    child: Child,
    printed: Receiver<String>,
}

impl Shell {
    fn start(folder: &Path) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_farrier")).parent().unwrap().to_owned();
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        for variable in ["FARRIER_SERVER", "FARRIER_TOKEN", "FARRIER_CA", "FARRIER_LOG", "FARRIER_STORE"] {
            command.env_remove(variable);
        }
        command.args(["--norc", "-seo", "pipefail"]).current_dir(folder).env("PATH", path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let (line, printed) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|text| line.send(text)));
        let mut shell = Self { child, printed };
        shell.tell("exec 2>&1\n");
        shell
    }

    fn tell(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// What these commands print; the shell ends at the first that fails.
    fn run(&mut self, block: &Block) -> String {
        const END: &str = "-- end of block --";
        self.tell(&format!("{}\necho '{END}'\n", block.commands));
        let mut text = String::new();
        loop {
            match self.printed.recv_timeout(PATIENCE) {
                Ok(line) if line == END => return text,
                Ok(line) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => panic!("line {}: it hangs after:\n{text}", block.line),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("line {}: a command failed:\n{}\nprinted:\n{text}", block.line, block.commands)
                }
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // Its process group: the server and the vehicles that are still there.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

#[test]
fn every_command_of_the_page_does_what_the_page_shows() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md");
    let blocks = blocks(&std::fs::read_to_string(page).unwrap());
    assert!(blocks.len() > 10, "expected the section {SECTION:?} with its blocks, found {}", blocks.len());
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Shell::start(folder.path());
    let mut differences = String::new();
    for block in &blocks {
        let text = shell.run(block);
        let (shown, printed) = (lines(block.shown.as_deref().unwrap_or_default()), lines(&text));
        if !fits(&shown, &printed) {
            let shown = block.shown.as_deref().unwrap_or("nothing\n");
            differences
                .push_str(&format!("== line {}: the page shows\n{shown}-- found\n{text}\n", block.line));
        }
    }
    let log = std::fs::read_to_string(folder.path().join("server.log")).unwrap_or_default();
    assert!(differences.is_empty(), "{differences}\n== the server's log\n{log}");
}

#[test]
fn what_is_left_out_of_a_page_may_be_anything_and_nothing_else_may() {
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    for (shown, printed, expected) in [
        (&["a", "…", "c"][..], &["a", "b", "b", "c"][..], true),
        (&["a", "…", "c"], &["a", "c"], true),
        (&["a", "…", "c"], &["a", "b"], false),
        (&["…"], &[], true),
        (&["a … c"], &["a b b c"], true),
        (&["a … c"], &["a b d"], false),
        (&["a … b … c"], &["a 1 b 2 c"], true),
        (&["a"], &["a", "b"], false),
        (&["a", "b"], &["a"], false),
        (&["a"], &["ab"], false),
    ] {
        assert_eq!(fits(&owned(shown), &owned(printed)), expected, "{shown:?} {printed:?}");
    }
}

#[test]
fn blocks_belong_to_the_section_and_text_to_the_commands_before_it() {
    let page = "```sh\nno\n```\n## A day with Farrier\n```sh\n## one\n```\n```text\nout\n```\n### x\n```sh\ntwo\n```\n## Next\n```sh\nno\n```\n";
    let found = blocks(page);
    let found: Vec<_> = found.iter().map(|block| (block.commands.as_str(), block.shown.as_deref())).collect();
    assert_eq!(found, [("## one\n", Some("out\n")), ("two\n", None)]);
}
