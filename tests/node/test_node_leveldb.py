"""The database: a batch is there as a whole or not at all."""

from collections.abc import Callable
from typing import cast

import pytest

from node.leveldb import LevelDB


def test_a_batch_that_cannot_be_made_leaves_nothing_behind(open_database: Callable[[], LevelDB]) -> None:
    database = open_database()
    with pytest.raises(TypeError):
        database.write({b"a": b"1", b"b": cast(bytes, None), b"head": b"2"})
    assert [database.get(key) for key in (b"a", b"b", b"head")] == [None, None, None]
    assert list(open_database().scan(b"", b"\xff")) == []
