"""The file with the secret by which operators sign their JSON-RPC tokens, in geth's format: 32 bytes of hex."""

import contextlib
import secrets
from pathlib import Path

from serving.keyfiles import SECRET_BYTES, read_secret, write_private


def load_or_create(path: Path) -> bytes:
    """The secret; a file that is not there is made, mode 0600. Raises SecretError."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):  # somebody else made it meanwhile: then theirs counts
            write_private(path, f"0x{secrets.token_hex(SECRET_BYTES)}\n")
    return read_secret(path, "the secret of the operators' tokens")
