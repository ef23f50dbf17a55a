"""What a gateway remembers of the chain: a tally that was told is durable, so that nobody is told of an older one."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.chain import Tally
from gateway.sets import ValidatorSets
from gateway.state import VerifiedState, load_state
from node.chain.genesis import Genesis, domain_of

GENESIS = Genesis(
    chain_id=7770, timestamp=1_700_000_000, validators=(b"\x01" * 20,), gateways=(b"\x02" * 20,), alloc={}
)


def state_in(folder: Path) -> VerifiedState:
    """What a gateway that starts now remembers."""
    return load_state(folder / "verified.json", domain_of(GENESIS), GENESIS)


def tally(block: int, *counts: int) -> Tally:
    return Tally(counts, 0, b"\x09" * 32, block, bytes([block]) * 32, 1_700_000_000 + block)


async def test_a_tally_is_durable_before_it_is_told(tmp_path: Path) -> None:
    state = state_in(tmp_path)
    for block in range(1, 6):
        told = await state.tell(7, tally(block, block, 0))
        assert state_in(tmp_path).tallies == {7: told}


async def test_an_older_tally_gives_way_to_the_one_told_before_a_crash(tmp_path: Path) -> None:
    newest = await state_in(tmp_path).tell(7, tally(9, 4, 5))
    restarted = state_in(tmp_path)  # its head is that of the last regular save, and has yet to catch up
    assert await restarted.tell(7, tally(3, 1, 1)) == newest
    assert await restarted.tell(8, tally(3, 2, 0)) == tally(3, 2, 0)
    assert state_in(tmp_path).tallies == {7: newest, 8: tally(3, 2, 0)}


async def test_what_is_written_fits_together_although_the_follower_is_further(tmp_path: Path) -> None:
    state = state_in(tmp_path)
    told = await state.tell(7, tally(1, 1, 0))
    # The follower has seen the validators change since; the head that is remembered is from before.
    state.sets = ValidatorSets([(1, state.head.validators), (50, (b"\x03" * 20,))])
    newer = await state.tell(7, tally(2, 2, 0))
    assert newer != told
    again = state_in(tmp_path)
    assert (again.tallies, again.head, again.sets.latest) == ({7: newer}, state.head, state.head.validators)


async def test_all_who_are_told_at_once_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_in(tmp_path)
    writes: list[int] = []
    write = state._write

    def counted(*arguments: object) -> None:
        writes.append(1)
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(state, "_write", counted)

    async def tell(id_: int) -> None:
        told = await state.tell(id_, tally(2, id_))
        assert state_in(tmp_path).tallies[id_] == told

    await asyncio.gather(*(tell(id_ % 20) for id_ in range(100)))
    assert 1 <= len(writes) <= 3
    await tell(3)
    assert len(writes) <= 3  # nothing new, nothing written


async def test_a_proven_tally_is_told_although_the_disk_refuses(tmp_path: Path) -> None:
    state = state_in(tmp_path)
    state._path = tmp_path / "missing" / "verified.json"
    assert await state.tell(7, tally(1, 1)) == tally(1, 1)
    with pytest.raises(FileNotFoundError):
        await state.save()
    state._path = tmp_path / "verified.json"
    assert await state.tell(7, replace(tally(1, 1))) == tally(1, 1)
    assert state_in(tmp_path).tallies == {7: tally(1, 1)}
