"""The last verified head, and what was read at it, in a file: what the gateway starts from and answers with alone."""

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gateway.chain import Tally
from gateway.definitions import Election
from gateway.disk import sync_folder
from gateway.sets import ValidatorSets
from gateway.verify import Head, check_validators
from node.chain.block import Header, decode_header
from node.chain.domain import Domain
from node.chain.errors import PeerError
from node.chain.genesis import Genesis, build_genesis
from node.consensus.override import Override, override_after

log = logging.getLogger(__name__)


class VerifiedState:
    """Head, validator sets, election definitions and tallies. Losing the file costs time, never a record."""

    def __init__(self, path: Path | None, domain: Domain, head: Head, sets: ValidatorSets) -> None:
        """`path` None: kept in memory alone."""
        self._path = path
        self._domain = domain
        self.head = head
        self.first_header = head.header  # that of block 0, whatever the file says later
        self.sets = sets
        self.elections: dict[int, Election] = {}
        self.tallies: dict[int, Tally] = {}
        self._durable: dict[int, Tally] = {}  # the tallies as the file has them
        self._next: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    async def tell(self, id_: int, tally: Tally) -> Tally:
        """Remember a tally that is about to be told, and return it, or the newer one that was told before.

        It is durable then: whoever was told of a tally is not told of an older one after a crash, when no validator
        can be reached, or the head has to be caught up with. It is told even if the disk refuses: it is proven.
        """
        known = self.tallies.get(id_)
        if known is not None and known.block_number >= tally.block_number:
            tally = known
        self.tallies[id_] = tally
        if self._path is not None and self._durable.get(id_) is not tally:
            try:
                await self.save()
            except OSError as error:
                log.warning("%s cannot be written: %s", self._path, error)
        return tally

    async def save(self) -> None:
        """Make durable what is remembered now; who asks while a write is under way shares the next. Raises OSError."""
        if self._next is None:
            self._next = asyncio.create_task(self._save())
        await asyncio.shield(self._next)

    async def _save(self) -> None:
        async with self._writing:
            self._next = None  # who asks from here on may have something newer
            header = self.head.header
            # The follower may be further already: sets of heights that this head does not reach would not fit it.
            sets = [entry for entry in self.sets.entries() if entry[0] <= header.number + 1]
            elections, tallies = list(self.elections.values()), dict(self.tallies)
            await asyncio.to_thread(self._write, header, sets, elections, tallies)
            self._durable = tallies

    def _write(
        self,
        header: Header,
        sets: Iterable[tuple[int, tuple[bytes, ...]]],
        elections: list[Election],
        tallies: dict[int, Tally],
    ) -> None:
        """Replace the file in one step."""
        if self._path is None:
            return
        document = {
            "genesisHash": self._domain.genesis_hash.hex(),
            "header": header.encoded.hex(),
            "sets": [[height, [one.hex() for one in validators]] for height, validators in sets],
            "definitions": [_plain(election) for election in elections],
            "tallies": {str(id_): _plain(tally) for id_, tally in tallies.items()},
        }
        fresh = self._path.with_suffix(".new")
        with open(fresh, "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)
        sync_folder(self._path.parent)  # else a power loss brings the older file back


def first_state(
    path: Path | None, domain: Domain, genesis: Genesis, overrides: tuple[Override, ...] = ()
) -> VerifiedState:
    """What a gateway knows that has seen nothing but the genesis document, and the overrides that it was given."""
    built = build_genesis(genesis)
    head = Head(built.block.header, built.next_validators)
    return VerifiedState(path, domain, head, ValidatorSets([(1, head.validators)], overrides))


def load_state(path: Path, domain: Domain, genesis: Genesis, overrides: tuple[Override, ...] = ()) -> VerifiedState:
    """What the file says; the start of the chain where there is no file, or one that cannot be used."""
    state = first_state(path, domain, genesis, overrides)
    with contextlib.suppress(FileNotFoundError):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["genesisHash"] != domain.genesis_hash.hex():
                raise ValueError("it belongs to another network")
            entries = [(height, tuple(map(bytes.fromhex, one))) for height, one in document["sets"]]
            sets = ValidatorSets(entries, overrides)
            head = Head(decode_header(bytes.fromhex(document["header"])), sets.latest)
            if override_after(head.header, overrides) is None:  # which may name others than the head does
                check_validators(head.header, head.validators)
            elections = {item["id"]: _election(item) for item in document["definitions"]}
            tallies = {int(id_): _tally(item) for id_, item in document["tallies"].items()}
        except (ValueError, KeyError, TypeError, PeerError) as error:
            log.warning("%s cannot be used (%s); verifying from block 0", path, error)
        else:
            state.head, state.sets, state.elections, state.tallies = head, sets, elections, tallies
            state._durable = dict(tallies)
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
    hashes = {name: bytes.fromhex(values[name]) for name in ("block_hash", "log_root")}
    return Tally(**values | hashes | {"counts": tuple(values["counts"])})
