"""`psephos keys`: make keys where they are used, look at them, and take them to and from other programs."""

import argparse
import sys
from pathlib import Path

from cluster.creation import KEY_FILES, finish_gateway, join, new_keys
from cluster.network import ClusterError
from node.chain.signing import SigningKey
from serving.keyfiles import SecretError, describe_key, key_text, load_key, read_password, store_key

KEY_PATTERNS = ("*.key", "UTC--*", "*.keystore.json")  # ours, geth's, and what people call exported ones


def run(options: argparse.Namespace) -> int:
    """Run one of the verbs."""
    try:
        return {"new": _new, "list": _list, "import": _import, "export": _export}[options.action](options)
    except SecretError as error:
        raise ClusterError(str(error)) from None


def open_key(path: Path, password_file: Path | None) -> SigningKey:
    """The key in a file; who waits for a keystore is told so. Raises SecretError."""
    if password_file is not None and describe_key(path)[1] == "keystore":
        print(f"opening the keystore {path}, which takes a second or two …", file=sys.stderr)
    return load_key(path, password_file)


def _password(path: Path | None) -> bytes | None:
    return None if path is None else read_password(path)


def _new(options: argparse.Namespace) -> int:
    """Make a key where it will be used."""
    address = new_keys(options.folder, options.kind, _password(options.password_file))
    if options.genesis is not None:
        join(options.folder, options.kind, address, options.genesis)
    if options.password_file is not None:
        _tell_password_file(options.folder / KEY_FILES[options.kind], options.password_file)
    print(address)
    return 0


def _tell_password_file(path: Path, password_file: Path) -> None:
    print(f'{path} is a keystore: set key_password_file = "{password_file.resolve()}"', file=sys.stderr)


def _list(options: argparse.Namespace) -> int:
    """One line a key; a file that cannot be used is named with its fault, and makes the exit code 1."""
    if not options.folder.is_dir():
        raise ClusterError(f"there is no folder {options.folder}")
    paths = sorted({path for pattern in KEY_PATTERNS for path in options.folder.rglob(pattern) if path.is_file()})
    faults = 0
    for path in paths:
        try:
            address, form = describe_key(path)
            print(f"{address or 'unnamed':<42}  {form:<8}  {path}")
        except SecretError as error:
            faults += 1
            print(f"{'unusable':<42}  {'':<8}  {error}")
    if not paths:
        print(f"no key files below {options.folder}", file=sys.stderr)
    return 1 if faults else 0


def _import(options: argparse.Namespace) -> int:
    key = open_key(options.file, options.password_file)
    path = options.folder / KEY_FILES[options.kind]
    options.folder.mkdir(parents=True, exist_ok=True)
    _store(path, key, _password(options.new_password_file))
    if options.kind == "gateway":
        finish_gateway(options.folder)
    if options.new_password_file is not None:
        _tell_password_file(path, options.new_password_file)
    print("0x" + key.address.hex())
    return 0


def _export(options: argparse.Namespace) -> int:
    password = _password(options.new_password_file)
    key = open_key(options.file, options.password_file)
    if options.stdout:
        print(key_text(key, password), end="")
        return 0
    _store(options.out, key, password)
    print(f"{options.out}: 0x{key.address.hex()}")
    return 0


def _store(path: Path, key: SigningKey, password: bytes | None) -> None:
    try:
        store_key(path, key, password)
    except FileExistsError:
        raise ClusterError(f"{path} exists already and is left as it is: choose another place") from None
    except OSError as error:
        raise ClusterError(f"cannot write {path}: {error.strerror}") from None
