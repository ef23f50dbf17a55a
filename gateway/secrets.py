"""Reads the files that hold keys and secrets, and refuses those that others could read, too."""

import logging
import os
import stat
from pathlib import Path

from node.chain.keystore import (
    KEYSTORE_BYTES_MAX,
    KeystoreError,
    looks_like_keystore,
    looks_like_secret,
    open_keystore,
    parse_password,
)
from node.chain.signing import SigningKey

log = logging.getLogger(__name__)


class SecretError(RuntimeError):
    """A key or secret file that is missing, open to others, or holds something else. Never shows what is in it."""


def read_secret(path: Path, what: str) -> bytes:
    """The 32 bytes of a file with one line of hex (0x or not), mode 0600. `what` names it in errors."""
    return _parse_secret(_read_private(path, what), path, what)


def read_key(path: Path, what: str, password_file: Path | None = None) -> SigningKey:
    """The key in a file of mode 0600: a line of hex, or a keystore V3 whose password is in `password_file`."""
    content = _read_private(path, what)
    if not looks_like_keystore(content):
        try:
            return SigningKey(_parse_secret(content, path, what))
        except ValueError:
            raise SecretError(f"{what} {path} is no private key of secp256k1") from None
    if password_file is None:
        raise SecretError(f"{what} {path} is a keystore: name the file with its password (key_password_file)")
    try:
        password = parse_password(_read_private(password_file, "the password file"))
    except KeystoreError as error:
        raise SecretError(f"the password file {password_file}: {error}") from None
    log.info("opening the keystore %s, which takes a second or two …", path)
    try:
        key = open_keystore(content, password)
    except KeystoreError as error:
        raise SecretError(f"{what} {path}: {error}") from None
    log.info("opened: account 0x%s", key.address.hex())
    return key


def _read_private(path: Path, what: str) -> bytes:
    if looks_like_secret(path.name):
        raise SecretError(f"{what}: expected the name of a file, and found what looks like its content")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & 0o077:
                raise SecretError(f"{what} {path} has mode {mode:04o}, expected 0600; run: chmod 600 {path}")
            return file.read(KEYSTORE_BYTES_MAX + 1)
    except OSError as error:
        raise SecretError(f"{what} {path}: {error.strerror}; `psephos init` makes it") from None


def _parse_secret(content: bytes, path: Path, what: str) -> bytes:
    try:
        secret = bytes.fromhex(content.decode("ascii").strip().removeprefix("0x"))
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise SecretError(f"{what} {path} does not hold 32 bytes as one line of hex")
    return secret
