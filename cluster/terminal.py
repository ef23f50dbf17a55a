"""Takes the terminal's Ctrl-C for this process alone while it runs in the foreground of another program's group."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def own_foreground() -> Iterator[None]:
    """Become the terminal's foreground process group, and give it back at the end.

    Called through `make`, both would get Ctrl-C, and make would report a failure (exit code 2 or 130) although
    everything stopped as asked. As shells do for their jobs, a group of our own is put in the foreground, so
    that make waits and passes on our exit code. Without a terminal, or started by a shell, nothing is done.
    """
    try:
        terminal = sys.stdin.fileno()
        former = os.tcgetpgrp(terminal)
    except (OSError, ValueError):  # no terminal, or stdin closed
        former = -1
    if former < 0 or os.getpgrp() == os.getpid() or former != os.getpgrp():
        yield
        return
    # Moving a terminal between groups from the background stops the caller unless SIGTTOU is ignored; and Ctrl-Z
    # would stop us alone, with make waiting for ever.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTTOU, signal.SIGTSTP)}
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.tcsetpgrp(terminal, former)
        for number, handler in before.items():
            signal.signal(number, handler)
