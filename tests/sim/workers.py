"""Worker processes that end with the process that started them, however that one ends."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.pool import Pool


def workers(count: int, *, tasks_each: int | None = None) -> Pool:
    """A pool of processes of their own; after so many tasks a new one takes a worker's place."""
    return multiprocessing.get_context("spawn").Pool(count, initializer=_end_with_parent, maxtasksperchild=tasks_each)


def _end_with_parent() -> None:
    """End this process once its parent is gone: a pool whose owner was killed would otherwise go on for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's, who ends its workers
    threading.Thread(target=_await_parent, name="parent", daemon=True).start()


def _await_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
