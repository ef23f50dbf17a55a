"""What is in a block is decoded and checked for whoever reads it, and its header whether anybody does or not."""

import asyncio
from collections.abc import Callable
from itertools import chain, repeat

import pytest

from gateway.follower import Follower
from gateway.sets import ValidatorSets
from gateway.verify import FinalBlock, Head, NotProven
from node.chain.errors import PeerError
from tests.gateway.receipt_world import World, make_anchor


class OneValidator:
    """A pool of one validator, whose block 1 anchors something, as the follower asks it."""

    reachable = True

    def __init__(self) -> None:
        self.world = World()
        self.height = 1
        self.set_size = 0
        self.world.anchor(make_anchor(1))
        certificate = self.world.certificates[1]
        assert certificate is not None
        self.block: dict[str, object] = {
            "header": "0x" + self.world.headers[1].encoded.hex(),
            "transactions": ["0xc0"],  # of a liar: the header names another
            "receipts": ["0xc0"],
            "certificate": {
                "height": "0x1",
                "round": "0x0",
                "blockHash": "0x" + certificate.block_hash.hex(),
                "seals": ["0x" + seal.hex() for seal in certificate.seals],
            },
        }

    def best_height(self) -> int:
        return self.height

    async def changed(self) -> None:
        await asyncio.Event().wait()

    async def call(self, *_: object) -> object:
        return [self.block]

    def follow(self, wants_blocks: Callable[[], bool]) -> tuple[Follower, list[FinalBlock | None]]:
        """A follower at block 0, and what it tells: blocks, and None for a jump."""
        told: list[FinalBlock | None] = []
        first = self.world.sets[0]
        follower = Follower(
            self,  # type: ignore[arg-type]
            self.world.domain,
            Head(first.header, first.validators),
            ValidatorSets([(1, first.validators)]),
            first.header,
            poll_s=1,
            on_block=told.append,
            on_jump=lambda: told.append(None),
            wants_blocks=wants_blocks,
        )
        return follower, told


async def test_contents_that_nobody_reads_are_not_looked_at() -> None:
    validator = OneValidator()
    follower, told = validator.follow(lambda: False)
    assert await follower._step(validator)  # type: ignore[arg-type]
    assert follower.head.header == validator.world.headers[1]
    assert told == []


async def test_contents_that_somebody_reads_are_those_of_the_header() -> None:
    validator = OneValidator()
    follower, told = validator.follow(lambda: True)
    with pytest.raises(NotProven, match="root"):
        await follower._step(validator)  # type: ignore[arg-type]
    assert (follower.head.header.number, told) == (0, [])


async def test_who_begins_to_read_meanwhile_asks_for_what_was_passed_over() -> None:
    validator = OneValidator()
    answers = chain((False,), repeat(True))
    follower, told = validator.follow(lambda: next(answers))
    assert await follower._step(validator)  # type: ignore[arg-type]
    assert (follower.head.header.number, told) == (1, [None])


@pytest.mark.parametrize("is_wanted", [False, True])
async def test_no_header_is_believed_without_a_quorum(is_wanted: bool) -> None:
    validator = OneValidator()
    certificate = validator.block["certificate"]
    assert isinstance(certificate, dict)
    validator.block["certificate"] = certificate | {"seals": certificate["seals"][:1]}
    follower, told = validator.follow(lambda: is_wanted)
    with pytest.raises(PeerError):
        await follower._step(validator)  # type: ignore[arg-type]
    assert (follower.head.header.number, told) == (0, [])
