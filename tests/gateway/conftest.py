"""What the gateway's tests share: a network behind it, a disk that loses what was not synced, and records to write."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway import validators
from gateway.api import anchors
from gateway.api.straight import Counter
from gateway.disk import Disk
from gateway.records import Ballot
from node.chain.domain import Domain
from tests.gateway.gateway_network import Network

DOMAIN = Domain(7770, bytes(range(32)))


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    """Validators with a chain, and what makes gateways in front of them."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        one = Network(tmp_path, client)
        await one.start()
        yield one
        await one.stop()


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The voters whose votes were taken where they arrived."""
    voters: list[str] = []
    take = Counter.take

    def noted(self: Counter, raw: bytes) -> Any:
        taken = take(self, raw)
        if taken is not None:
            voters.append(taken[1].voter_id)
        return taken

    monkeypatch.setattr(Counter, "take", noted)
    return voters


class PowerLoss(Exception):
    """The machine went off in the middle of an operation. Not an OSError: nobody gets to handle it."""


@dataclass
class _File:
    synced: bytes = b""
    written: bytes = b""
    named: bool = False  # the folder entry is durable


@dataclass
class FragileDisk(Disk):
    """A disk in memory. What is not synced may be lost, in whole or in part, at a power loss.

    `refuse(operation, count, path)` says if this operation fails with an I/O error; `off_at` is the number of the
    operation at which the power goes.
    """

    files: dict[Path, _File] = field(default_factory=dict)
    refuse: Callable[[str, int, Path], bool] = lambda operation, count, path: False
    off_at: int | None = None
    count: int = 0
    open_files: dict[int, Path] = field(default_factory=dict)
    unlinked: dict[Path, _File] = field(default_factory=dict)

    def _step(self, operation: str, path: Path, partly: Callable[[], None] = lambda: None) -> None:
        self.count += 1
        if self.off_at is not None and self.count >= self.off_at:
            partly()
            raise PowerLoss
        if self.refuse(operation, self.count, path):
            partly()
            raise OSError(errno.EIO, "Input/output error")

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in self.files if path.parent == folder]

    def read(self, path: Path) -> bytes:
        file = self.files[path]
        return file.synced + file.written

    def create(self, path: Path) -> int:
        self._step("create", path)
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "File exists")
        self.files[path] = _File()
        descriptor = len(self.open_files) + 3
        self.open_files[descriptor] = path
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        path = self.open_files[descriptor]
        file = self.files[path]

        def partly() -> None:
            file.written += data[: random.Random(self.count).randint(0, len(data))]

        self._step("write", path, partly)
        file.written += data

    def sync(self, descriptor: int) -> None:
        path = self.open_files[descriptor]
        self._step("sync", path)
        file = self.files[path]
        file.synced, file.written = file.synced + file.written, b""

    def close(self, descriptor: int) -> None:
        pass

    def unlink(self, path: Path) -> None:
        self._step("unlink", path)
        assert path in self.files, f"{path} was deleted already, and is still counted"
        self.unlinked[path] = self.files.pop(path)

    def sync_folder(self, folder: Path) -> None:
        self._step("sync_folder", folder)
        for path, file in self.files.items():
            file.named = file.named or path.parent == folder
        self.unlinked = {path: file for path, file in self.unlinked.items() if path.parent != folder}

    def after_power_loss(self, chance: random.Random) -> FragileDisk:
        """What a machine finds when it is switched on again: all that was synced, and some of the rest, maybe torn."""
        survivor = FragileDisk()
        unlinked = {path: file for path, file in self.unlinked.items() if chance.random() < 0.5}
        for path, file in (*self.files.items(), *unlinked.items()):
            if not file.named and chance.random() < 0.5:
                continue
            tail = file.written[: chance.randint(0, len(file.written))]
            if tail and chance.random() < 0.3:
                tail = bytes(len(tail))  # the length reached the disk and the data did not
            survivor.files[path] = _File(file.synced + tail, b"", True)
        return survivor


def make_ballot(number: int, *, election: int = 1, kind: int = 0, content: bytes = b"\x01") -> Ballot:
    """A ballot that differs from that of every other number."""
    return Ballot(election, number.to_bytes(32, "big"), (number + (1 << 200)).to_bytes(32, "big"), kind, content)


@pytest.fixture
def domain() -> Domain:
    return DOMAIN


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests share a machine: what is a matter of milliseconds in life may take seconds here."""
    monkeypatch.setattr(anchors, "LOOK_UP_S", 5.0)
    monkeypatch.setattr(validators, "PROBE_S_MAX", 5.0)
