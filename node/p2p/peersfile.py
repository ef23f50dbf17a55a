"""Where the address book survives a restart: `peers.json`, replaced as a whole or not at all."""

import logging
import os
from pathlib import Path

import orjson

from node.p2p.addressbook import AddressBook, ForeignBook

FILE_BYTES_MAX = 8 * 1024 * 1024
_log = logging.getLogger(__name__)


def load_peers(path: Path, book: AddressBook) -> None:
    """Fill `book` from the file. It holds hints only, so a file that is missing or unusable is no error."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ForeignBook(f"larger than {FILE_BYTES_MAX} bytes")
        book.load(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return
    except (OSError, orjson.JSONDecodeError, ForeignBook) as error:
        _log.warning("%s cannot be used, peers will be learnt anew: %s", path, error)


def save_peers(path: Path, document: dict[str, object]) -> None:
    """Replace the file by `document`, synced. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
