"""The file with the secret by which operators sign their JSON-RPC tokens, in geth's format: 32 bytes of hex."""

import contextlib
import secrets
from pathlib import Path

from node.keyfile import KeyFileError, read_private, write_private
from node.rpc.token import SECRET_BYTES


def load_or_create(path: Path) -> bytes:
    """The secret; a file that is not there is made, mode 0600. Raises KeyFileError."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):  # somebody else made it meanwhile: then theirs counts
            write_private(path, f"0x{secrets.token_hex(SECRET_BYTES)}\n")
    content = read_private(path, "secret of the operators' tokens")
    try:
        secret = bytes.fromhex(content.decode("ascii").strip().removeprefix("0x"))
    except ValueError:
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise KeyFileError(
            f"{path} does not hold a secret of {2 * SECRET_BYTES} hexadecimal digits; without it, one is made"
        )
    return secret
