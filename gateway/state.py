"""The last verified head, and what was read at it, in a file: what the gateway starts from and answers with alone."""

import contextlib
import json
import logging
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gateway.chain import Election, Tally
from gateway.verify import Head
from node.chain.block import decode_header
from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.chain.genesis import Genesis, build_genesis

log = logging.getLogger(__name__)


class VerifiedState:
    """Head, election definitions and tallies by election. Losing the file costs time, never a record."""

    def __init__(self, path: Path, domain: Domain, head: Head) -> None:
        self._path = path
        self._domain = domain
        self.head = head
        self.elections: dict[int, Election] = {}
        self.tallies: dict[int, Tally] = {}

    def save(self) -> None:
        """Replace the file in one step. Blocking. Raises OSError."""
        document = {
            "genesisHash": self._domain.genesis_hash.hex(),
            "header": self.head.header.encoded.hex(),
            "validators": [address.hex() for address in self.head.validators],
            "elections": [_plain(election) for election in self.elections.values()],
            "tallies": {str(id_): _plain(tally) for id_, tally in self.tallies.items()},
        }
        fresh = self._path.with_suffix(".new")
        with open(fresh, "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)


def load_state(path: Path, domain: Domain, genesis: Genesis) -> VerifiedState:
    """What the file says; the start of the chain where there is no file, or one that cannot be used."""
    built = build_genesis(genesis)
    state = VerifiedState(path, domain, Head(built.block.header, built.next_validators))
    with contextlib.suppress(FileNotFoundError):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["genesisHash"] != domain.genesis_hash.hex():
                raise ValueError("it belongs to another network")
            head = Head(
                decode_header(bytes.fromhex(document["header"])), tuple(map(bytes.fromhex, document["validators"]))
            )
            elections = {item["id"]: _election(item) for item in document["elections"]}
            tallies = {int(id_): _tally(item) for id_, item in document["tallies"].items()}
        except (ValueError, KeyError, TypeError, PeerError) as error:
            log.warning("%s cannot be used (%s); verifying from block 0", path, error)
        else:
            state.head, state.elections, state.tallies = head, elections, tallies
    return state


def _plain(value: Any) -> dict[str, Any]:
    def plain(item: Any) -> Any:
        if isinstance(item, bytes):
            return item.hex()
        return [plain(part) for part in item] if isinstance(item, tuple) else item

    return {name: plain(item) for name, item in asdict(value).items()}


def _election(item: dict[str, Any]) -> Election:
    values = {field.name: item[field.name] for field in fields(Election)}
    values["options"] = tuple(values["options"])
    values["registrars"] = tuple(map(bytes.fromhex, values["registrars"]))
    return Election(**values | {name: bytes.fromhex(values[name]) for name in ("creator", "key_check")})


def _tally(item: dict[str, Any]) -> Tally:
    values = {field.name: item[field.name] for field in fields(Tally)}
    return Tally(**values | {"counts": tuple(values["counts"]), "block_hash": bytes.fromhex(values["block_hash"])})
