"""A repeated ballot is told from a second vote wherever the standing one was cast, and every content is found again."""

import pytest

from node.chain.contracts import ballots
from node.chain.contracts.ballots import Outcome
from node.chain.contracts.elections import ABI as ELECTIONS_ABI
from node.chain.errors import LedgerError
from node.chain.stored import block_key
from tests.chain.conftest import ELECTIONS, GATEWAY, Chain, create_election, pack, word

Record = tuple[bytes, bytes, int, bytes]


def sealed(number: int, content: bytes = b"", record: int | None = None) -> Record:
    """A sealed ballot of voter `number`; contents differ unless named."""
    record_id = word(1_000 + (number if record is None else record))
    return word(number), record_id, 1, content or b"content of %d" % number


def cast_block(chain: Chain, *batches: list[Record]) -> list[list[int]]:
    """One block with a transaction for each batch; the outcomes of each."""
    transactions = [
        chain.sign(GATEWAY, ELECTIONS, ELECTIONS_ABI.encode_call("castBatch", 1, pack(*batch)), ahead=ahead)
        for ahead, batch in enumerate(batches)
    ]
    outcomes = []
    for receipt in chain.take(transactions):
        assert receipt.succeeded
        decoded = ELECTIONS_ABI.decode_event(receipt.event_logs[0])
        assert decoded is not None
        outcomes.append(list(decoded[1][3]))
    return outcomes


def again(number: int) -> list[Record]:
    """The same ballot, the same under another record id, and another ballot of that voter."""
    return [sealed(number), sealed(number, record=number + 500), sealed(number, b"another")]


AGAIN = [Outcome.REPEATED, Outcome.REPEATED, Outcome.NULLIFIER_USED]


@pytest.mark.parametrize("number", [0, 3, 69, 70, 99, 100, 119])
def test_the_standing_ballot_is_compared_wherever_it_was_cast(number: int) -> None:
    chain = Chain()
    assert create_election(chain, 1).succeeded
    stored = [sealed(each) for each in range(70)]  # more than a page of the log
    earlier = [sealed(each) for each in range(70, 100)]
    same = [sealed(each) for each in range(100, 120)]
    assert cast_block(chain, stored) == [[0] * 70]
    outcomes = cast_block(chain, earlier, same + again(number) + [sealed(500)])
    assert outcomes == [[0] * 30, [0] * 20 + AGAIN + [0]]
    assert cast_block(chain, again(number)) == [AGAIN]
    for nullifier, record_id, kind, content in [*stored, *earlier, *same, sealed(500)]:
        for view, id_ in (("ballotByNullifier", nullifier), ("ballotByRecordId", record_id)):
            found, ballot = chain.view(ELECTIONS, view, 1, id_)
            assert found
            assert ballot[1:5] == (nullifier, record_id, kind, content)
    page = chain.view(ELECTIONS, "ballots", 1, 60, 50)
    assert [ballot[4] for ballot in page] == [b"content of %d" % each for each in range(60, 110)]


def test_ballots_cast_alone_are_found_again_and_compared() -> None:
    chain = Chain()
    assert create_election(chain, 1).succeeded
    for number in range(3):
        nullifier, record_id, kind, content = sealed(number)
        assert chain.send(GATEWAY, ELECTIONS, "cast", 1, nullifier, record_id, kind, content).succeeded
    assert cast_block(chain, [*again(1), sealed(7)]) == [[*AGAIN, Outcome.ACCEPTED]]
    for number in (0, 1, 2, 7):
        found, ballot = chain.view(ELECTIONS, "ballotByNullifier", 1, word(number))
        assert (found, ballot[1:5]) == (True, sealed(number))


def test_a_page_reads_a_bounded_part_of_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ballot may stand in another large block; whoever asks again behind the last gets them all."""
    chain = Chain()
    assert create_election(chain, 1).succeeded
    for number in range(12):
        cast_block(chain, [sealed(number)])
    monkeypatch.setattr(ballots, "PAGE_READ_BYTES_MAX", 3 * len(chain.database[block_key(5)]))
    contents: list[bytes] = []
    while page := chain.view(ELECTIONS, "ballots", 1, len(contents), 100):
        assert len(page) <= 5
        contents += [ballot[4] for ballot in page]
    assert contents == [sealed(number)[3] for number in range(12)]


def test_calldata_that_no_block_holds_is_an_error_of_ours() -> None:
    chain = Chain()
    with pytest.raises(LedgerError, match="has no transaction 0"):
        chain.state().calldata(0, 0)
    with pytest.raises(LedgerError, match="block 9 is not stored"):
        chain.state().calldata(9, 0)
