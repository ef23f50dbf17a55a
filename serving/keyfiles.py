"""Files of keys and secrets, readable by their owner alone: a line of hex, or a keystore V3 and its password's file."""

import json
import logging
import os
import secrets
import stat
from pathlib import Path

from node.chain.keystore import (
    KEYSTORE_BYTES_MAX,
    KeystoreError,
    looks_like_keystore,
    looks_like_secret,
    open_keystore,
    parse_keystore,
    parse_password,
)
from node.chain.signing import SigningKey

log = logging.getLogger(__name__)

SECRET_BYTES = 32
_KEY_HINT = "; `psephos keys new` makes one"


class SecretError(RuntimeError):
    """A key or secret file that is missing, open to others, or holds something else. Never shows what is in it."""


def read_private(path: Path, what: str, hint: str = "; `psephos init` makes it") -> bytes:
    """The content of a file that only its owner may read. Raises SecretError when it is missing or open to others.

    `what` names it in errors; `hint` says there how one is made.
    """
    if looks_like_secret(path.name):
        raise SecretError(f"{what}: expected the name of a file, and found what looks like its content")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & 0o077:
                raise SecretError(f"{what} {path} is open to others: mode {mode:04o}, not 0600; run: chmod 600 {path}")
            return file.read(KEYSTORE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise SecretError(f"{what} {path} is not there{hint}") from None
    except OSError as error:
        raise SecretError(f"{what} {path} cannot be read: {error.strerror}") from None


def read_secret(path: Path, what: str) -> bytes:
    """The 32 bytes of a file with one line of hex, 0x or not. Raises SecretError."""
    return _parse_secret(read_private(path, what), path, what)


def _parse_secret(content: bytes, path: Path, what: str) -> bytes:
    try:
        secret = bytes.fromhex(content.decode("ascii").strip().removeprefix("0x"))
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise SecretError(f"{what} {path} does not hold {2 * SECRET_BYTES} hexadecimal digits in one line")
    return secret


def write_private(path: Path, content: str) -> None:
    """Write a new file with mode 0600, synced with its name. Raises FileExistsError rather than replace one.

    A file that cannot be written whole is taken away again: half a key would stand in the way of the next one.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def read_password(path: Path) -> bytes:
    """The first line of a password file. Raises SecretError."""
    try:
        return parse_password(read_private(path, "the password file", ""))
    except KeystoreError as error:
        raise SecretError(f"the password file {path}: {error}") from None


def create_key(path: Path, password: bytes | None = None) -> SigningKey:
    """Write a new random key and return it: hex, or with a password a keystore. Raises FileExistsError."""
    key = SigningKey(secrets.token_bytes(32))
    store_key(path, key, password)
    return key


def store_key(path: Path, key: SigningKey, password: bytes | None = None) -> None:
    """Write `key` with mode 0600: a line of hex, or with a password a keystore V3. Raises FileExistsError."""
    if path.exists():  # before scrypt takes its second
        raise FileExistsError(path)
    write_private(path, key_text(key, password))


def key_text(key: SigningKey, password: bytes | None = None) -> str:
    """What a key file holds: a line of hex, or with a password a keystore V3 with scrypt as geth makes it."""
    if password is None:
        return f"0x{key.secret.hex()}\n"
    from eth_keyfile.keyfile import create_keyfile_json  # not at the top: half a second, for those who use keystores

    document = create_keyfile_json(key.secret, password, kdf="scrypt")
    return json.dumps(document | {"address": key.address.hex()}, indent=2) + "\n"


def load_key(path: Path, password_file: Path | None = None, *, what: str = "the key file") -> SigningKey:
    """Read a key file. Raises SecretError when it is missing, open to others, or no key; never quotes its content.

    `password_file` is needed for a keystore and ignored for a line of hex; `what` names the file in errors.
    """
    content = read_private(path, what, _KEY_HINT)
    if not looks_like_keystore(content):
        secret = _parse_secret(content, path, what)
        try:
            return SigningKey(secret)
        except ValueError:
            raise SecretError(f"{what} {path} holds 64 hexadecimal digits that are no key of secp256k1") from None
    if password_file is None:
        raise SecretError(f"{what} {path} is a keystore: name the file with its password (key_password_file)")
    password = read_password(password_file)
    log.info("opening the keystore %s, which takes a second or two …", path)
    try:
        key = open_keystore(content, password)
    except KeystoreError as error:
        raise SecretError(f"the keystore {path}: {error}") from None
    log.info("opened: account 0x%s", key.address.hex())
    return key


def describe_key(path: Path) -> tuple[str, str]:
    """(address, "hex" or "keystore") of a key file, without its password. Raises SecretError.

    A keystore's address is what it claims; "" where it claims none, as the format allows.
    """
    content = read_private(path, "the key file", _KEY_HINT)
    if not looks_like_keystore(content):
        return "0x" + load_key(path).address.hex(), "hex"
    try:
        claimed = str(parse_keystore(content).get("address") or "").lower().removeprefix("0x")
    except KeystoreError as error:
        raise SecretError(f"the keystore {path}: {error}") from None
    return f"0x{claimed}" if claimed else "", "keystore"
