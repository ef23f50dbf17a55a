"""What a node sets of its memory before it runs: when the collector looks, and what goes back to the system."""

import contextlib
import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>


def settle() -> None:
    """Call it once, when everything that lives as long as the process is there."""
    _calm_collector()
    _give_back_buffers()


def _calm_collector() -> None:
    """Let the cyclic collector run rarely, and never over what lives as long as the process.

    Almost nothing here is cyclic, and thousands of transactions that wait are no garbage: looking through them again
    and again took a fifth of a validator's time (190 against 152 µs of CPU a transfer, batches of 50, medians of 3).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _give_back_buffers() -> None:
    """Have large buffers go back to the system as soon as they are freed: glibc's mallopt(3); nothing elsewhere.

    Left to itself, glibc serves requests of up to 32 MiB from its heap once it has seen such, and blocks full of
    ballots leave holes there that nothing fits into. It costs 5 % of a validator's time for a ballot, and saves 60 to
    80 MB.
    """
    with contextlib.suppress(AttributeError, OSError):  # a C library without it
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        mallopt(_M_TRIM_THRESHOLD, 4 << 20)
