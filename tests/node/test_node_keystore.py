"""Keystores V3: those of geth and eth-account are read, ours are read by them, and bad ones are refused unquoted."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from node.chain.keystore import KeystoreError, open_keystore, parse_password
from serving.keyfiles import SecretError, create_key, describe_key, key_text, load_key, store_key

PASSWORD = b"correct horse"
SECRET = bytes.fromhex("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d")
# The test vectors of the Web3 Secret Storage Definition, which geth tests itself with, too; password "testpassword".
VECTORS: dict[str, dict[str, Any]] = {
    "scrypt": {
        "cipherparams": {"iv": "83dbcc02d8ccb40e466191a123791e0e"},
        "ciphertext": "d172bf743a674da9cdad04534d56926ef8358534d458fffccd4e6ad2fbde479c",
        "kdfparams": {
            "dklen": 32,
            "n": 262144,
            "p": 8,
            "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        },
        "mac": "2103ac29920d71da29f15d75b4a16dbe95cfd7ff8faea1056c33131d846e3097",
    },
    "pbkdf2": {
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
}


def private(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o600)
    return path


def quick_keystore() -> dict[str, Any]:
    """Made by eth-account with a cheap scrypt; the format is the same."""
    made: dict[str, Any] = Account.encrypt(SECRET, PASSWORD.decode(), kdf="scrypt", iterations=2)
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kdf", sorted(VECTORS))
def test_the_vectors_of_the_format(kdf: str) -> None:
    document = {"crypto": VECTORS[kdf] | {"cipher": "aes-128-ctr", "kdf": kdf}, "id": "x", "version": 3}
    assert open_keystore(json.dumps(document).encode(), b"testpassword").secret == SECRET


def test_eth_account_writes_what_we_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, password = private(tmp_path / "key", json.dumps(quick_keystore())), private(tmp_path / "pw", PASSWORD + b"\n")
    with caplog.at_level(logging.INFO):
        assert load_key(path, password).secret == SECRET
    assert caplog.text.count("opening the keystore") == 1
    assert SECRET.hex() not in caplog.text
    assert PASSWORD.decode() not in caplog.text


def test_eth_account_reads_what_we_write(tmp_path: Path) -> None:
    key = create_key(tmp_path / "node.key", PASSWORD)
    text = (tmp_path / "node.key").read_text()
    assert (tmp_path / "node.key").stat().st_mode & 0o777 == 0o600
    assert key.secret.hex() not in text
    assert Account.decrypt(json.loads(text), PASSWORD.decode()) == key.secret
    assert json.loads(text)["crypto"]["kdfparams"]["n"] == 262144  # as costly as geth's standard
    assert describe_key(tmp_path / "node.key") == ("0x" + key.address.hex(), "keystore")


def test_a_line_of_hex_needs_no_password(tmp_path: Path) -> None:
    key = create_key(tmp_path / "node.key")
    assert load_key(tmp_path / "node.key", tmp_path / "missing").secret == key.secret
    assert describe_key(tmp_path / "node.key") == ("0x" + key.address.hex(), "hex")
    assert key_text(key) == f"0x{key.secret.hex()}\n"


def test_a_key_is_not_replaced(tmp_path: Path) -> None:
    key = create_key(tmp_path / "node.key")
    with pytest.raises(FileExistsError):
        store_key(tmp_path / "node.key", key, PASSWORD)
    assert load_key(tmp_path / "node.key").secret == key.secret


@pytest.mark.parametrize(
    ("password", "mode", "expected"),
    [
        (None, 0o600, "key_password_file"),
        (b"", 0o600, "1 to 1024 bytes"),
        (b"wrong", 0o600, "not the keystore's"),
        (PASSWORD, 0o644, "chmod 600"),
    ],
)
def test_the_password_file_is_as_private_as_the_key(
    tmp_path: Path, password: bytes | None, mode: int, expected: str
) -> None:
    path = private(tmp_path / "key", json.dumps(quick_keystore()))
    file = None if password is None else private(tmp_path / "pw", password)
    if file:
        file.chmod(mode)
    with pytest.raises(SecretError, match=expected) as caught:
        load_key(path, file)
    assert password is None or not password or password.decode() not in str(caught.value)


def test_only_the_first_line_is_the_password() -> None:
    assert parse_password(b"one two\r\nthree\n") == b"one two"
    with pytest.raises(KeystoreError):
        parse_password(b"\nthree\n")
    with pytest.raises(KeystoreError):
        parse_password(b"x" * 1025)


def changed(**values: object) -> dict[str, Any]:
    """The keystore with one thing in it replaced, wherever it stands; `None` removes it."""
    document = quick_keystore()
    for place in (document, document["crypto"], document["crypto"]["kdfparams"]):
        for name in [name for name in values if name in place]:
            place[name] = values[name]
            if values[name] is None:
                del place[name]
    return document


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (changed(version=4), "version 4"),
        (changed(crypto=None), "expected aes-128-ctr"),
        (changed(kdf="argon2"), "expected aes-128-ctr"),
        (changed(cipher="aes-128-cbc"), "expected aes-128-ctr"),
        (changed(kdfparams=7), "expected aes-128-ctr"),
        (changed(n=1 << 40), "more than 1024 MiB"),
        (changed(p=1 << 30), "16 lanes"),
        (changed(n="2"), "positive integers"),
        (changed(n=3), "damaged"),
        (changed(dklen=64), "expected 32"),
        (changed(mac="00" * 32), "not the keystore's, or"),
        (changed(ciphertext="zz"), "damaged"),
        (changed(salt=7), "damaged"),
        (changed(address="11" * 20), "names address 0x1111"),
        ([], "no JSON object"),
    ],
)
def test_a_bad_keystore_is_refused(document: object, expected: str) -> None:
    with pytest.raises(KeystoreError, match=expected):
        open_keystore(json.dumps(document).encode(), PASSWORD)


@pytest.mark.parametrize("content", [b"{", b"{" * 100_000, b'{"version": 3, "x": "' + b"y" * 70_000 + b'"}', b"{\xff}"])
def test_what_is_no_keystore_is_refused(content: bytes) -> None:
    with pytest.raises(KeystoreError, match="no JSON object"):
        open_keystore(content, PASSWORD)


def test_a_keystore_may_leave_its_address_out(tmp_path: Path) -> None:
    document = changed(address=None)
    assert "address" not in document
    assert open_keystore(json.dumps(document).encode(), PASSWORD).secret == SECRET
    assert describe_key(private(tmp_path / "key", json.dumps(document))) == ("", "keystore")
