"""The fuzzer's targets in the suite: honest bytes, small damage to them, and everything that ever crashed."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.rpc_targets import RPC_TARGETS
from tests.fuzz.run import FOUND, NAMES
from tests.fuzz.targets import TARGETS

ALL = TARGETS | RPC_TARGETS
CRASHERS = sorted(path for path in FOUND.glob("*/*"))


def test_the_command_knows_every_target() -> None:
    assert set(NAMES) == set(ALL)


@pytest.mark.parametrize("path", CRASHERS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_crashed_once(path: Path) -> None:
    ALL[path.parent.name].check(path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_honest_bytes(name: str) -> None:
    for seed in ALL[name].seeds():
        ALL[name].check(seed)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(list(ALL[name].seeds())))
    begin = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(begin, min(len(seed), begin + 4)))
    ALL[name].check(seed[:begin] + data.draw(st.binary(max_size=8)) + seed[end:])
