//! The terminal itself: its own screen while the campaign is watched, and everything as before when it is over.

use std::io::Write;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::screen::{Line, Style};

/// As terminals are that do not tell.
const USUAL_SIZE: (usize, usize) = (80, 24);

/// The alternate screen without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A terminal whose keys come at once and are not shown; put back when this is dropped, also by a panic.
pub(super) struct Terminal {
    before: Termios,
}

impl Terminal {
    pub(super) fn enter() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        let terminal = Self { before };
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        write(ENTER)?;
        Ok(terminal)
    }

    /// Draws all lines, in one piece so that nothing flickers.
    pub(super) fn draw(&mut self, lines: impl FnOnce(usize, usize) -> Vec<Line>) -> std::io::Result<()> {
        let (width, height) = size();
        let drawn: Vec<String> = lines(width, height).iter().map(drawn).collect();
        write(&format!("\x1b[H{}\x1b[J", drawn.join("\r\n")))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to put back.
        let _ = write(LEAVE);
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// Columns and rows.
fn size() -> (usize, usize) {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        Ok(_) | Err(_) => USUAL_SIZE,
    }
}

fn drawn(line: &Line) -> String {
    let text = &line.text;
    let code = match line.style {
        Style::Plain => return format!("{text}\x1b[K"),
        Style::Strong => "1",
        Style::Reverse => "7",
        Style::Good => "32",
        Style::Bad => "31",
        Style::Warning => "33",
    };
    format!("\x1b[{code}m{text}\x1b[0m\x1b[K")
}

fn write(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
