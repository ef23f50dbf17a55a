"""When to dial: against every order of events, nobody is dialled twice at once, nor forgotten."""

from hypothesis import given
from hypothesis import strategies as st

from node.p2p.dialplan import DialPlan, DialPolicy

POLICY = DialPolicy(first_ms=100, cap_ms=5_000, steady_ms=5_000)
PEER = b"\x01" * 20


def plan_of(*peers: bytes) -> DialPlan:
    plan = DialPlan(POLICY)
    plan.want(set(peers or (PEER,)), now_ms=0)
    return plan


def failures(plan: DialPlan, count: int, *, jitter: float) -> list[int]:
    """The waits between `count` failures in a row."""
    now_ms, waits = 0, []
    for _ in range(count):
        began_ms = now_ms
        while not plan.take_due(now_ms=now_ms):
            now_ms += 1
        waits.append(now_ms - began_ms)
        plan.failed(PEER, now_ms=now_ms, jitter=jitter)
    return waits


def test_the_back_off_doubles_to_the_cap() -> None:
    assert failures(plan_of(), 9, jitter=1.0) == [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]


@given(st.floats(0, 1, exclude_max=True))
def test_jitter_shortens_by_half_at_most(jitter: float) -> None:
    for wait, full in zip(failures(plan_of(), 4, jitter=jitter)[1:], [100, 200, 400], strict=True):
        assert full / 2 - 1 <= wait <= full


def test_who_is_connected_or_being_dialled_is_not_dialled() -> None:
    plan = plan_of()
    assert plan.take_due(now_ms=0) == [(PEER, 0)]
    assert plan.take_due(now_ms=100_000) == []
    plan.opened(PEER, now_ms=100_000)
    plan.ended(PEER)
    assert plan.take_due(now_ms=200_000) == []
    plan.closed(PEER, now_ms=200_000, jitter=1.0)
    assert plan.take_due(now_ms=200_099) == []
    assert plan.take_due(now_ms=200_100) == [(PEER, 1)]


def test_who_came_to_us_before_we_knew_where_to_dial_is_not_dialled() -> None:
    plan = DialPlan(POLICY)
    plan.opened(PEER, now_ms=0)
    plan.want({PEER}, now_ms=0)
    assert plan.take_due(now_ms=100_000) == []
    plan.closed(PEER, now_ms=100_000, jitter=1.0)
    assert plan.take_due(now_ms=100_100) == [(PEER, 0)]


def test_sessions_that_do_not_last_count_as_failures() -> None:
    """Two processes with one key throw each other out; they must not do it a hundred times a second."""
    plan = plan_of()
    for now_ms in range(0, 700, 100):
        plan.opened(PEER, now_ms=now_ms)
        plan.closed(PEER, now_ms=now_ms + 1, jitter=1.0)
    assert plan.take_due(now_ms=601 + 4_999) == []
    assert plan.take_due(now_ms=601 + 5_000) == [(PEER, 0)]


def test_news_make_a_peer_due_at_once() -> None:
    plan = plan_of()
    failures(plan, 8, jitter=1.0)
    plan.hurry(PEER, now_ms=0)
    assert plan.take_due(now_ms=0) == [(PEER, 8)]


def test_who_is_no_longer_wanted_is_forgotten() -> None:
    plan = plan_of(PEER, b"\x02" * 20)
    plan.want({b"\x02" * 20}, now_ms=0)
    assert plan.take_due(now_ms=0) == [(b"\x02" * 20, 0)]
    plan.ended(PEER)
    plan.failed(PEER, now_ms=0, jitter=0)
    plan.closed(PEER, now_ms=0, jitter=0)
    plan.opened(PEER, now_ms=0)
    assert plan.take_due(now_ms=10_000) == []


steps = st.lists(st.tuples(st.sampled_from(["dial", "fail", "open", "end", "close", "hurry"]), st.integers(0, 6_000)))


@given(steps)
def test_a_wanted_peer_is_always_due_within_the_cap(order: list[tuple[str, int]]) -> None:
    plan = plan_of()
    now_ms, is_busy, is_open = 0, False, False
    for step, pause_ms in order:
        now_ms += pause_ms
        if step == "dial":
            due = plan.take_due(now_ms=now_ms)
            assert not due or not (is_busy or is_open)
            is_busy = is_busy or bool(due)
        elif step == "fail" and is_busy:
            plan.failed(PEER, now_ms=now_ms, jitter=0.5)
            is_busy = False
        elif step == "open":
            plan.opened(PEER, now_ms=now_ms)
            is_open = True
        elif step == "end" and is_busy:
            plan.ended(PEER)
            is_busy = False
        elif step == "close" and is_open:
            plan.closed(PEER, now_ms=now_ms, jitter=0.5)
            is_open = False
        elif step == "hurry":
            plan.hurry(PEER, now_ms=now_ms)
    assert bool(plan.take_due(now_ms=now_ms + POLICY.cap_ms)) is not (is_busy or is_open)
