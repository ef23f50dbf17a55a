"""Private key files: one line of 0x-hex, readable by their owner alone."""

import os
import secrets
import stat
from pathlib import Path

from node.chain.signing import SigningKey


class KeyFileError(RuntimeError):
    """The key file cannot be used; the message says why and what to do."""


def create_key(path: Path) -> SigningKey:
    """Write a new random key with mode 0600 and return it. Raises FileExistsError rather than replace a key."""
    key = SigningKey(secrets.token_bytes(32))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"0x{key.secret.hex()}\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def load_key(path: Path) -> SigningKey:
    """Read a key file. Raises KeyFileError when it is missing, open to others, or no key; never quotes its content."""
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except FileNotFoundError:
        raise KeyFileError(f"there is no key file {path}; 'psephos keys new' writes one") from None
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileError(f"the key file {path} is open to others; run: chmod 600 {path}")
    try:
        return SigningKey(bytes.fromhex(text.removeprefix("0x")))
    except ValueError:
        raise KeyFileError(f"the key file {path} does not hold 64 hexadecimal digits of a private key") from None
