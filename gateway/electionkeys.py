"""The keys of elections: derived from the shared master secret, or random, kept here alone and erased in the end."""

import asyncio
import os
import re
import secrets
from pathlib import Path

from gateway.disk import make_folder, sync_folder
from gateway.nullifier import MASTER_SECRET_BYTES, ElectionKey, election_key
from gateway.problems import Problem
from node.chain.domain import Domain
from serving.keyfiles import read_secret

KEPT = 1_024  # derived ones, which are quickly made anew
RANDOM_MAX = 10_000

_NAME = re.compile(r"(\d{1,78})\.key", re.ASCII)


class ElectionKeys:
    """Finds an election's key by the check value that the chain has of it.

    A random key is durable before anybody is told of its check value. Whoever loses its file can neither cast in that
    election any more nor tell a retry from a second vote; once it is erased, nobody can tell who cast which ballot.
    """

    def __init__(self, master_secret: bytes, domain: Domain, folder: Path | None) -> None:
        """`folder`: where random keys are; None where there are none. Raises SecretError, OSError."""
        self._master_secret, self._domain, self._folder = master_secret, domain, folder
        self._derived: dict[int, ElectionKey] = {}
        self._random: dict[int, ElectionKey] = {}
        self._making = asyncio.Lock()
        if folder is not None and folder.is_dir():
            for path in folder.iterdir():
                if (match := _NAME.fullmatch(path.name)) is not None:
                    id_ = int(match[1])
                    self._random[id_] = ElectionKey(read_secret(path, "an election's key"), id_)

    def derived(self, id_: int) -> ElectionKey:
        """The key that every gateway with the master secret derives."""
        key = self._derived.get(id_)
        if key is None:
            key = ElectionKey(election_key(self._master_secret, self._domain, id_), id_)
            if len(self._derived) >= KEPT:
                self._derived.pop(next(iter(self._derived)))
            self._derived[id_] = key
        return key

    def random(self, id_: int) -> ElectionKey | None:
        """The random key that was made here, if there is one."""
        return self._random.get(id_)

    def random_ids(self) -> list[int]:
        """The elections of which there is one."""
        return list(self._random)

    def fitting(self, id_: int, check: bytes | None) -> ElectionKey:
        """The key with this check value, the derived one where none fits; None: the election has not been seen yet."""
        random = self._random.get(id_)
        if random is not None and check in (None, random.check):
            return random
        return self.derived(id_)

    async def make(self, id_: int) -> ElectionKey:
        """A random key for an election, or the one made before; durable. Raises Problem 503 where it cannot be kept."""
        if self._folder is None:
            raise Problem(503, "no-random-keys", "Random keys are not kept here.")
        async with self._making:
            if (made := self._random.get(id_)) is not None:
                return made
            if len(self._random) >= RANDOM_MAX:
                raise Problem(503, "too-many-keys", f"{RANDOM_MAX} random keys are kept here already.")
            key = secrets.token_bytes(MASTER_SECRET_BYTES)
            try:
                await asyncio.to_thread(_write, self._folder / f"{id_}.key", key)
            except OSError as error:
                detail = f"The election's key cannot be kept: {error.strerror}."
                raise Problem(503, "not-durable", detail) from None
            self._random[id_] = ElectionKey(key, id_)
            return self._random[id_]

    async def erase(self, id_: int) -> None:
        """Delete a random key. What the disk still holds of it afterwards is the disk's matter. Raises OSError."""
        if self._folder is not None and id_ in self._random:
            await asyncio.to_thread(_delete, self._folder / f"{id_}.key")
            del self._random[id_]


def _write(path: Path, key: bytes) -> None:
    make_folder(path.parent)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)  # of an earlier life that ended in the middle
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    sync_folder(path.parent)


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    sync_folder(path.parent)
