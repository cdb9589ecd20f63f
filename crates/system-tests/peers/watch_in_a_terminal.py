"""Watches a campaign in a pseudo-terminal: from its start to its end, through a resize and a refused key, and leaves by q.

Arguments: the farrier program and the campaign's name; server, token and root certificate are in the environment.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

FARRIER, CAMPAIGN = sys.argv[1:3]
PATIENCE_S = 60


def set_size(terminal, rows, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Screen:
    """What a program writes to its terminal."""

    def __init__(self, terminal):
        self.terminal, self.text = terminal, ""

    def wait_for(self, expected):
        """Reads until this was written, and forgets what came before it."""
        until = time.monotonic() + PATIENCE_S
        while expected not in self.text:
            if not select.select([self.terminal], [], [], max(0, until - time.monotonic()))[0]:
                sys.exit(f"expected {expected!r} within {PATIENCE_S} s; the screen has {self.text[-4000:]!r}")
            try:
                self.text += os.read(self.terminal, 65536).decode("utf-8", "replace")
            except OSError:
                sys.exit(f"expected {expected!r}; the program ended after {self.text[-4000:]!r}")
        self.text = self.text.split(expected, 1)[1]


def main():
    terminal, of_program = pty.openpty()
    set_size(terminal, 24, 80)
    before = termios.tcgetattr(of_program)
    program = subprocess.Popen(
        [FARRIER, "campaign", "watch", CAMPAIGN],
        stdin=of_program, stdout=of_program, stderr=of_program, start_new_session=True,
    )
    screen = Screen(terminal)
    screen.wait_for("\x1b[?1049h")
    screen.wait_for(f"State: draft; starts with: farrier campaign start {CAMPAIGN}")
    assert termios.tcgetattr(of_program) != before, "keys are expected at once, without being shown"

    os.write(terminal, b"p")
    screen.wait_for("Only a campaign that runs is paused")

    set_size(terminal, 40, 120)
    program.send_signal(signal.SIGWINCH)
    # The first line goes to the right edge, which is further away now.
    screen.wait_for("Campaign " + CAMPAIGN + "  release r1" + " " * (120 - 80 + 1))

    subprocess.run([FARRIER, "campaign", "start", CAMPAIGN], check=True, stdout=subprocess.DEVNULL)
    screen.wait_for("State: finished; every vehicle is done, none failed")
    screen.wait_for("succeeded")
    screen.wait_for("campaign.started")

    assert program.poll() is None, "the end of the campaign is not the end of the view"
    os.write(terminal, b"q")
    screen.wait_for("\x1b[?25h\x1b[?1049l")
    code = program.wait(timeout=PATIENCE_S)
    assert code == 0, f"expected exit code 0, found {code}"
    assert termios.tcgetattr(of_program) == before, "the terminal is expected as it was before"


main()
