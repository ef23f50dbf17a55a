"""Reads the files that hold secrets, and refuses those that others could read, too."""

import os
import stat
from pathlib import Path


class SecretError(RuntimeError):
    """A key or secret file that is missing, open to others, or not 32 bytes of hex. Never shows what is in it."""


def read_secret(path: Path, what: str) -> bytes:
    """The 32 bytes of a file with one line of hex (0x or not), mode 0600. `what` names it in errors."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SecretError(f"{what} {path}: {error.strerror}; `psephos init` makes it") from None
    with open(descriptor, encoding="ascii", errors="replace") as file:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            raise SecretError(f"{what} {path} has mode {mode:04o}, expected 0600; run `chmod 600` on it")
        text = file.read(256).strip()
    try:
        secret = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise SecretError(f"{what} {path} does not hold 32 bytes as one line of hex")
    return secret
