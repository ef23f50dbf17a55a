"""Private keys under a password: the keystore format V3 of geth and eth-account (Web3 Secret Storage), read."""

import json
import re
from typing import Any

from node.chain.signing import SigningKey

KEYSTORE_BYTES_MAX = 1 << 16
SCRYPT_BYTES_MAX = 1 << 30  # 128 · n · r, the memory that it takes; what geth and eth-account write takes 256 MiB
PBKDF2_ROUNDS_MAX = 10_000_000
PASSWORD_BYTES_MAX = 1024


class KeystoreError(ValueError):
    """No keystore, a damaged one, or the wrong password. Never shows what is in it, nor the password."""


def looks_like_secret(name: str) -> bool:
    """Whether what should name a file is 32 bytes of hex, hence a secret itself: it is to be repeated nowhere."""
    return re.fullmatch(r"(0x)?[0-9a-fA-F]{64}", name) is not None


def looks_like_keystore(content: bytes) -> bool:
    """Whether a key file's content is a keystore rather than a line of hex."""
    return content.lstrip()[:1] == b"{"


def parse_keystore(content: bytes) -> dict[str, Any]:
    """The document, its version and the cost of its key derivation checked. Raises KeystoreError."""
    try:
        document = json.loads(content) if len(content) <= KEYSTORE_BYTES_MAX else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise KeystoreError(f"is no JSON object of at most {KEYSTORE_BYTES_MAX} bytes")
    document = {str(name).lower(): value for name, value in document.items()}  # old writers: "Crypto"
    if document.get("version") != 3:
        raise KeystoreError(f"has version {document.get('version')!r}, expected a keystore of version 3")
    try:
        crypto = document["crypto"]
        kdf, parameters = crypto["kdf"], crypto["kdfparams"]
        cost = {"scrypt": ("n", "r", "p", "dklen"), "pbkdf2": ("c", "dklen")}[kdf]
        values = [parameters[name] for name in cost]
        if crypto["cipher"] != "aes-128-ctr":
            raise KeyError("cipher")
    except (KeyError, TypeError):
        raise KeystoreError("expected aes-128-ctr, and scrypt or pbkdf2 with their parameters") from None
    if not all(type(value) is int and value > 0 for value in values):
        raise KeystoreError(f"kdfparams {', '.join(cost)}: expected positive integers")
    if values[-1] != 32:
        raise KeystoreError(f"kdfparams dklen {values[-1]}: expected 32")
    if kdf == "scrypt" and (128 * values[0] * values[1] > SCRYPT_BYTES_MAX or values[2] > 16):
        raise KeystoreError(f"its scrypt would take more than {SCRYPT_BYTES_MAX >> 20} MiB, or more than 16 lanes")
    if kdf == "pbkdf2" and values[0] > PBKDF2_ROUNDS_MAX:
        raise KeystoreError(f"kdfparams c {values[0]}: at most {PBKDF2_ROUNDS_MAX}")
    return document


def open_keystore(content: bytes, password: bytes) -> SigningKey:
    """The key in a keystore; takes about a second and 256 MiB by design. Raises KeystoreError."""
    from eth_keyfile.keyfile import decode_keyfile_json  # not at the top: half a second, for those who use keystores

    document = parse_keystore(content)
    try:
        key = SigningKey(decode_keyfile_json(document, password))
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        if "MAC mismatch" in str(error):
            raise KeystoreError("the password is not the keystore's, or the keystore is damaged") from None
        raise KeystoreError("is damaged: its fields do not make a private key") from None
    named = str(document.get("address") or key.address.hex()).lower().removeprefix("0x")
    if named != key.address.hex():
        raise KeystoreError(f"names address 0x{named[:40]} and holds the key of 0x{key.address.hex()}")
    return key


def parse_password(content: bytes) -> bytes:
    """The password in a file: its first line, as geth reads it. Raises KeystoreError when it is empty or too long."""
    password = content.split(b"\n", 1)[0].rstrip(b"\r")
    if not 0 < len(password) <= PASSWORD_BYTES_MAX:
        raise KeystoreError(f"expected a password of 1 to {PASSWORD_BYTES_MAX} bytes on its first line")
    return password
