"""Ctrl-C at `make up`: the program stops as asked, make sees success, and the terminal is given back."""

import os
import pty
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

from cluster.processes import ROOT

PROGRAM = """
import os, signal, sys
from cluster.terminal import own_foreground
stopped = []
signal.signal(signal.SIGINT, lambda *_: stopped.append(1))
with own_foreground():
    print("waiting", os.getpgrp() == os.getpid(), flush=True)
    while not stopped:
        signal.pause()
print("given back", os.tcgetpgrp(0) != os.getpgrp(), flush=True)
"""


def read_until(terminal: int, text: str, within_s: float = 20) -> str:
    """What the terminal shows until `text` is there, or until it closes."""
    seen, deadline = "", time.monotonic() + within_s
    while text not in seen:
        assert time.monotonic() < deadline, f"{text!r} never came: {seen!r}"
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 4096).decode(errors="replace")
            except OSError:  # the other side is closed
                break
    return seen


def test_ctrl_c_through_make_ends_with_success(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "Makefile").write_text(f"up:\n\t@{shlex.quote(sys.executable)} program.py\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        os.execvpe("make", ["make", "up"], {**outer, "PYTHONPATH": str(ROOT)})
    try:
        assert "waiting True" in read_until(terminal, "waiting True")
        os.write(terminal, b"\x03")
        assert "given back True" in read_until(terminal, "given back True")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        os.close(terminal)


def test_without_a_terminal_nothing_moves() -> None:
    program = "import os; from cluster.terminal import own_foreground\nbefore = os.getpgrp()\n"
    program += "with own_foreground(): assert os.getpgrp() == before"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, env=environment, check=True)
