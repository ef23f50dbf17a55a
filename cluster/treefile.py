"""A batch's tree in a file: all its complete subtrees, written in one pass over the leaves, read node by node.

A line of JSON (format, algorithm, number of leaves), then the 32-byte hashes of level 0, of level 1, and so on: of
level L there are size >> L. A million leaves take 64 MB here, and every proof can be made from them.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO

from merkle.log import HASH_BYTES, Frontier, inclusion_proof
from merkle.trees import RFC6962

FORMAT = "psephos-tree"
CHUNK = 8_192
_COPY_BYTES = 1 << 20


class TreeFileError(ValueError):
    """A file that is no tree, or not a whole one."""


def write_tree(path: Path, leaf_hashes: Iterable[bytes]) -> tuple[int, bytes]:
    """Write the tree of these leaves; its size and root. Memory does not grow with the batch. Raises OSError."""
    frontier = Frontier()
    rest = iter(leaf_hashes)
    with ExitStack() as stack:
        levels: list[IO[bytes]] = []

        def level(number: int) -> IO[bytes]:
            while len(levels) <= number:
                levels.append(stack.enter_context(tempfile.TemporaryFile(dir=path.parent)))
            return levels[number]

        while chunk := list(islice(rest, CHUNK)):
            level(0).write(b"".join(chunk))
            for number, _, hashes in frontier.extend(chunk):
                level(number).write(b"".join(hashes))
        fresh = path.with_name(path.name + ".new")
        with open(fresh, "wb") as file:
            head = {"format": FORMAT, "version": 1, "algorithm": RFC6962, "size": frontier.size}
            file.write(json.dumps(head).encode() + b"\n")
            for one in levels:
                one.seek(0)
                while data := one.read(_COPY_BYTES):
                    file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    return frontier.size, frontier.root()


class TreeFile:
    """An open tree; use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises TreeFileError or OSError."""
        self._file = open(path, "rb")  # noqa: SIM115  closed by __exit__
        try:
            head = json.loads(self._file.readline(4096))
            if head["format"] != FORMAT or head["version"] != 1 or head["algorithm"] != RFC6962:
                raise TreeFileError(f"{path} is no tree of this version")
            self.size = int(head["size"])
        except (ValueError, KeyError, TypeError) as error:
            self._file.close()
            raise TreeFileError(f"{path} is no tree: {error}") from None
        begin = self._file.tell()
        self._begins = []
        for level in range(self.size.bit_length()):
            self._begins.append(begin)
            begin += (self.size >> level) * HASH_BYTES
        if os.fstat(self._file.fileno()).st_size != begin:
            self._file.close()
            raise TreeFileError(f"{path} is not whole: {begin} bytes expected")

    def __enter__(self) -> "TreeFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree."""
        self._file.seek(self._begins[level] + index * HASH_BYTES)
        return self._file.read(HASH_BYTES)

    def leaf_hashes(self) -> Iterator[bytes]:
        """All of them, in order."""
        if self.size == 0:
            return
        self._file.seek(self._begins[0])
        left = self.size
        while left:
            data = self._file.read(min(left, CHUNK) * HASH_BYTES)
            for at in range(0, len(data), HASH_BYTES):
                yield data[at : at + HASH_BYTES]
            left -= len(data) // HASH_BYTES

    def prove(self, index: int) -> list[bytes]:
        """The inclusion proof of a leaf. Raises ValueError where there is none."""
        return inclusion_proof(index, self.size, self.node)
