"""What a validator is to be told, against a slow oracle that looks at everything in flight each time."""

from dataclasses import dataclass
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.lane import RESEND_S_MAX, Lane

RESEND_S = 2.0


@dataclass(frozen=True)
class Signed:
    nonce: int
    hash: bytes
    raw: bytes


@dataclass(eq=False, frozen=True)
class Sent:
    transaction: Signed


class Oracle:
    """Everything in flight, with when it is due; what is being sent is in the air."""

    def __init__(self) -> None:
        self.at: dict[Sent, float] = {}
        self.interval: dict[Sent, float] = {}
        self.air: list[Sent] = []

    def due(self, now: float) -> set[Sent]:
        return {sent for sent, at in self.at.items() if at <= now and sent not in self.air}

    def answered(self, sent: Sent, now: float, pause: float | None) -> None:
        interval = self.interval.get(sent, RESEND_S)
        self.interval[sent] = min(2 * interval, RESEND_S_MAX)
        self.at[sent] = now + (interval if pause is None else pause)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("sign"), st.integers(0, 6)),
        st.tuples(st.just("final"), st.integers(0, 6)),
        st.tuples(st.just("post"), st.integers(1, 5)),
        st.tuples(st.just("answer"), st.sampled_from((None, None, 0.25))),
        st.tuples(st.just("fail"), st.none()),
        st.tuples(st.just("wait"), st.sampled_from((0.25, 1.0, 2.0, 9.0))),
    ),
    max_size=60,
)


ROUND = [("post", 1), ("answer", None), ("wait", 2.0)]


@given(STEPS)
@example([("sign", 0), *ROUND, *ROUND, ("post", 1)])  # the second time it waits for twice as long
@example([("sign", 0), *ROUND, *ROUND, ("fail", None), *ROUND, ("post", 1)])
def test_what_is_due_is_what_a_look_at_everything_finds(steps: list[tuple[str, Any]]) -> None:
    lane: Lane[Sent] = Lane(RESEND_S)
    oracle = Oracle()
    flying: dict[int, Sent] = {}
    now, signed = 100.0, 0
    for step, value in steps:
        if step in ("sign", "final") and (old := flying.pop(value, None)) is not None:
            lane.forget(old)
            oracle.at.pop(old, None)
        if step == "sign":
            signed += 1
            flying[value] = sent = Sent(Signed(value, signed.to_bytes(4, "big"), bytes(10)))
            lane.put(sent)
            oracle.at[sent] = now
        elif step == "post" and not oracle.air:
            expected = oracle.due(now)
            portion = lane.due(flying, now, count_max=value, bytes_max=30)
            assert len(portion) == min(len(expected), value, 3)
            assert set(portion) <= expected
            assert [sent.transaction.nonce for sent in portion] == sorted(sent.transaction.nonce for sent in portion)
            oracle.air = portion
        elif step == "answer":
            for sent in oracle.air:
                if flying.get(sent.transaction.nonce) is sent:
                    lane.sent_at((sent,), now, value)
                    oracle.answered(sent, now, value)
            oracle.air = []
        elif step == "fail":
            lane.restart(flying.values())
            oracle.at = dict.fromkeys(flying.values(), now)
            oracle.interval.clear()
            oracle.air = []
        elif step == "wait":
            now += value
        if not oracle.air:
            soonest = min(oracle.at.values(), default=now + 60)
            assert lane.next_s(now) <= max(soonest, now), "nothing is overslept"


def test_one_that_is_larger_than_a_post_is_sent_alone() -> None:
    lane: Lane[Sent] = Lane(RESEND_S)
    flying = {number: Sent(Signed(number, bytes([number]), bytes(100))) for number in (1, 2)}
    lane.restart(flying.values())
    assert lane.due(flying, 0, count_max=10, bytes_max=50) == [flying[1]]
    assert lane.due(flying, 0, count_max=10, bytes_max=50) == [flying[2]]
    assert lane.due(flying, 0, count_max=10, bytes_max=50) == []
