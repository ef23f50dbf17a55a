"""The validators of past heights, proven change by change; and the check of a journal from outside."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli import main
from gateway.disk import Disk
from gateway.follower import Follower
from gateway.journal import Journal
from gateway.journal_format import encode_accepted
from gateway.sets import ValidatorSets
from gateway.verify import Head, NotProven
from node.chain.errors import PeerError
from tests.gateway.conftest import DOMAIN, make_ballot
from tests.gateway.receipt_world import World, small_world

A, B, C = (bytes([n] * 20) for n in (1, 2, 3))


def test_each_height_has_its_own_validators() -> None:
    sets = ValidatorSets([(1, (A,)), (10, (A, B)), (20, (B, C))])
    assert [sets.at(height) for height in (1, 9, 10, 19, 20, 500)] == [(A,), (A,), (A, B), (A, B), (B, C), (B, C)]
    assert sets.latest == (B, C)
    assert ValidatorSets(sets.entries()).entries() == sets.entries()


@pytest.mark.parametrize("heights", [[], [2], [1, 1], [1, 9, 5]])
def test_what_is_no_history_is_refused(heights: list[int]) -> None:
    with pytest.raises(ValueError, match="begin with height 1"):
        ValidatorSets([(height, (A,)) for height in heights])


class OneValidator:
    """A validator of a world that has changed its set twice, as the follower asks it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.height = len(world.headers) - 1
        self.changes = [self._change(one.header.number) for one in world.sets[1:]]
        self.set_size = 0

    def _sealed(self, height: int) -> dict[str, object]:
        certificate = self.world.certificates[height]
        assert certificate is not None
        return {
            "height": hex(height),
            "round": hex(certificate.round),
            "blockHash": "0x" + certificate.block_hash.hex(),
            "seals": ["0x" + seal.hex() for seal in certificate.seals],
        }

    def _change(self, height: int) -> dict[str, object]:
        named = next(one.validators for one in self.world.sets if one.header.number == height)
        header = "0x" + self.world.headers[height].encoded.hex()
        return {"header": header, "certificate": self._sealed(height), "validators": ["0x" + a.hex() for a in named]}

    async def call(self, _: object, method: str, parameters: tuple[str, ...], __: float | None = None) -> object:
        if method == "poa_getValidatorChanges":
            first, last = (int(text, 16) for text in parameters)
            heights = [one.header.number for one in self.world.sets[1:]]
            return [change for change, at in zip(self.changes, heights, strict=True) if first <= at <= last][:1]
        header = self.world.headers[-1]  # an empty block: its body is nothing
        block = {"header": "0x" + header.encoded.hex(), "transactions": [], "receipts": []}
        return [block | {"certificate": self._sealed(header.number)}]


def follower_of(world: World, validator: OneValidator) -> tuple[Follower, list[str]]:
    first = world.sets[0]
    jumps: list[str] = []
    follower = Follower(
        validator,  # type: ignore[arg-type]
        world.domain,
        Head(first.header, first.validators),
        ValidatorSets([(1, first.validators)]),
        first.header,
        poll_s=1,
        on_block=lambda block: None,
        on_jump=lambda: jumps.append("jump"),
    )
    return follower, jumps


async def test_a_jump_over_changes_of_the_validators_is_proven_change_by_change() -> None:
    world = small_world()
    validator = OneValidator(world)
    follower, jumps = follower_of(world, validator)
    assert await follower._jump(validator)  # type: ignore[arg-type]
    assert jumps == ["jump"]
    assert follower.head.header == world.headers[-1]
    for one in world.sets:
        assert follower.validators_at(one.header.number + 1) == one.validators
    assert follower.head.validators == world.validators
    assert validator.set_size == len(world.validators)


async def test_a_jump_that_is_cut_short_leaves_the_sets_of_the_old_head(monkeypatch: pytest.MonkeyPatch) -> None:
    world = small_world()
    validator = OneValidator(world)
    follower, jumps = follower_of(world, validator)

    async def no_answer(*_: object) -> None:
        raise NotProven("the next validators are not named")

    monkeypatch.setattr(follower, "_advance", no_answer)
    with pytest.raises(NotProven):
        await follower._jump(validator)  # type: ignore[arg-type]
    assert (jumps, follower.head.header, len(follower.sets.entries())) == ([], world.headers[0], 1)


@pytest.mark.parametrize("lie", ["omitted", "seals", "validators", "order"])
async def test_a_jump_believes_no_change_that_is_not_sealed(lie: str) -> None:
    world = small_world()
    validator = OneValidator(world)
    if lie == "omitted":
        validator.changes[0] = validator.changes[1]
    elif lie == "seals":
        sealed = validator.changes[0]["certificate"]
        assert isinstance(sealed, dict)
        validator.changes[0]["certificate"] = sealed | {"seals": sealed["seals"][:1]}
    elif lie == "validators":
        validator.changes[0]["validators"] = ["0x" + A.hex()]
    else:
        validator.changes.reverse()
    follower, jumps = follower_of(world, validator)
    with pytest.raises(PeerError):
        await follower._jump(validator)  # type: ignore[arg-type]
    assert (jumps, follower.head.header) == ([], world.headers[0]), "nothing is taken in part"
    assert len(follower.sets.entries()) == 1


def write_journal(folder: Path) -> Path:
    journal = Journal(folder / "journal", DOMAIN, disk=Disk())
    for group in range(5):
        journal.write([encode_accepted(make_ballot(group * 3 + n), 1) for n in range(3)], accepted=3, settled=())
    journal.close()
    (path,) = (folder / "journal").glob("*.journal")
    return path


def test_a_sound_journal_is_told_and_a_damaged_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_journal(tmp_path)
    data = path.read_bytes()
    assert main(["journal", "verify", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "15 records wait" in told
    assert "15 ballot waits" in told
    path.write_bytes(data[:-7])
    assert main(["journal", "verify", str(tmp_path / "journal")]) == 0
    assert "never acknowledged" in capsys.readouterr().out
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    assert main(["journal", "verify", str(tmp_path)]) == 1
    assert "is damaged at byte" in capsys.readouterr().err
    assert main(["journal", "verify", str(tmp_path / "nowhere")]) == 1


def test_each_changed_byte_of_an_acknowledged_frame_but_the_last_is_found(tmp_path: Path) -> None:
    path = write_journal(tmp_path)
    data = path.read_bytes()
    for position in range(0, len(data) * 3 // 4, 53):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :])
        assert main(["journal", "verify", str(tmp_path)]) == 1, position


def test_a_history_is_a_copy_of_its_own() -> None:
    sets = ValidatorSets([(1, (A,))])
    header = replace(small_world().headers[3])
    with pytest.raises(PeerError):
        sets.copy().note(header, (B,))
    assert sets.entries() == [(1, (A,))]
