"""Sessions without sockets: hello and versions, keep-alive and deadlines, rates."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.chain.errors import PeerError
from node.p2p.framing import MalformedFrame, encode_frame
from node.p2p.kinds import Kind, payload_bytes_max
from node.p2p.session import (
    Hello,
    InvalidHello,
    LocalError,
    PeerTimeout,
    Session,
    SessionLimits,
    WrongVersion,
    decode_hello,
    encode_hello,
    message_frame,
)

CAPS = payload_bytes_max(1024 * 1024)
LIMITS = SessionLimits()
OURS = Hello(1, 1, 7, "ours", "localhost:30303", "test/1")
versions = st.integers(1, 9)


def session(hello: Hello = OURS, *, limits: SessionLimits = LIMITS) -> Session:
    return Session(hello, CAPS, limits, now_ms=0)


def opened() -> Session:
    ours = session()
    ours.receive(session().opening(), now_ms=0)
    return ours


@given(
    st.tuples(versions, versions).map(sorted),
    st.integers(0, 2**64 - 1),
    st.text(st.characters(categories=["L", "N", "P"]), max_size=64),
    st.sampled_from(["", "a:1", "[::1]:30303", "192.0.2.1:65535"]),
)
def test_a_hello_comes_back_as_it_was(spoken: list[int], height: int, name: str, endpoint: str) -> None:
    hello = Hello(spoken[0], spoken[1], height, name, endpoint, "client/2")
    assert decode_hello(encode_hello(hello)) == hello


@given(st.tuples(versions, versions).map(sorted), st.tuples(versions, versions).map(sorted))
def test_both_sides_agree_on_a_version_or_both_refuse(first: list[int], second: list[int]) -> None:
    hellos = [Hello(spoken[0], spoken[1], 0, "", "", "") for spoken in (first, second)]
    sides = [session(hello) for hello in hellos]
    common = set(range(first[0], first[1] + 1)) & set(range(second[0], second[1] + 1))
    for side, hello in zip(sides, reversed(hellos), strict=True):
        frame = encode_frame(Kind.HELLO, encode_hello(hello))
        if common:
            assert side.receive(frame, now_ms=1).opened
            assert side.version == max(common)
        else:
            with pytest.raises(WrongVersion):
                side.receive(frame, now_ms=1)
            assert not side.is_open


def test_a_hello_of_a_later_version_may_look_different() -> None:
    """Its first two fields tell; the rest is read only when a version is agreed whose hello we know."""
    frame = encode_frame(Kind.HELLO, msgpack.packb([2, 3, ["anything"], None]))
    with pytest.raises(WrongVersion, match="2 to 3"):
        session().receive(frame, now_ms=0)
    with pytest.raises(InvalidHello, match="6 fields"):
        session(Hello(1, 2, 0, "", "", "")).receive(frame, now_ms=0)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [1],
        [0, 1, 0, "", "", ""],
        [2, 1, 0, "", "", ""],
        [True, True, 0, "", "", ""],
        [1, 1, -1, "", "", ""],
        [1, 1, 1.0, "", "", ""],
        [1, 1, 0, b"bytes", "", ""],
        [1, 1, 0, "x" * 65, "", ""],
        [1, 1, 0, "line\nbreak", "", ""],
        [1, 1, 0, "", "nowhere", ""],
        [1, 1, 0, "", None, ""],
        [1, 1, 0, "", "", "\x1b[31m"],
        [1, 1, 0, "", "", "", "more"],
        {"1": 1},
        "text",
        7,
    ],
)
def test_what_is_no_hello(fields: object) -> None:
    with pytest.raises(PeerError):
        session().receive(encode_frame(Kind.HELLO, msgpack.packb(fields)), now_ms=0)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_hello_or_an_error(data: bytes) -> None:
    try:
        hello = decode_hello(data)
    except PeerError:
        return
    assert decode_hello(encode_hello(hello)) == hello


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.HELLO}))
def test_nothing_counts_before_hello(kind: Kind) -> None:
    with pytest.raises(MalformedFrame, match="HELLO was expected"):
        session().receive(encode_frame(kind, b""), now_ms=0)


def test_a_hello_with_messages_behind_it_in_one_read() -> None:
    ours = session()
    data = session().opening() + encode_frame(Kind.STATUS, b"1") + encode_frame(Kind.BLOCKS, b"2")
    incoming = ours.receive(data, now_ms=0)
    assert incoming.opened
    assert incoming.messages == [(Kind.STATUS, b"1"), (Kind.BLOCKS, b"2")]


def test_a_second_hello_is_refused() -> None:
    with pytest.raises(MalformedFrame, match="HELLO came"):
        opened().receive(session().opening(), now_ms=0)


def test_pings_are_answered_and_measured() -> None:
    ours, theirs = opened(), opened()
    ping = ours.tick(now_ms=LIMITS.ping_after_ms)
    assert ping[4] == Kind.PING
    pong = theirs.receive(ping, now_ms=5).answer
    assert ours.receive(pong, now_ms=LIMITS.ping_after_ms + 40).messages == []
    assert ours.round_trip_ms == 40


def test_one_ping_per_interval_and_none_while_the_peer_talks() -> None:
    ours = opened()
    pings = [now_ms for now_ms in range(0, 4000, 250) if ours.tick(now_ms=now_ms)]
    assert pings == [1000, 2000, 3000]
    talking = opened()
    for now_ms in range(0, 10_000, 250):
        talking.receive(encode_frame(Kind.STATUS, b""), now_ms=now_ms)
        assert talking.tick(now_ms=now_ms) == b""


def ticks_until_timeout(ours: Session, *, step_ms: int = 250, end_ms: int = 100_000) -> int:
    for now_ms in range(0, end_ms, step_ms):
        try:
            ours.tick(now_ms=now_ms)
        except PeerTimeout:
            return now_ms
    return end_ms


def test_silence_ends_a_session() -> None:
    assert ticks_until_timeout(opened()) == LIMITS.silence_ms_max + 250


def test_no_hello_ends_a_session_though_the_peer_sends_bytes() -> None:
    ours = session()
    hello = session().opening()
    for now_ms in range(0, 4000, 1000):
        ours.receive(hello[now_ms // 1000 : now_ms // 1000 + 1], now_ms=now_ms)
    ours.tick(now_ms=LIMITS.hello_ms_max)
    with pytest.raises(PeerTimeout, match="no hello"):
        ours.tick(now_ms=LIMITS.hello_ms_max + 1)


def test_a_frame_that_drips_ends_a_session() -> None:
    ours = opened()
    ours.receive(encode_frame(Kind.BLOCKS, bytes(1000))[:5], now_ms=0)
    for now_ms in range(1000, LIMITS.frame_ms_max + 1, 1000):
        ours.receive(b"\0", now_ms=now_ms)
        ours.tick(now_ms=now_ms)
    with pytest.raises(PeerTimeout, match="not finished"):
        ours.tick(now_ms=LIMITS.frame_ms_max + 1)


def test_our_own_sleep_is_not_the_peers_silence() -> None:
    """After SIGSTOP and SIGCONT of our own process, peers get another chance to be heard."""
    ours = opened()
    ours.tick(now_ms=250)
    assert ours.tick(now_ms=60_000)[4] == Kind.PING
    ours.receive(encode_frame(Kind.STATUS, b""), now_ms=60_100)
    ours.tick(now_ms=60_250)
    silent = opened()
    silent.tick(now_ms=60_000)
    for now_ms in range(60_250, 64_001, 250):
        silent.tick(now_ms=now_ms)  # one second of silence is counted from before the sleep
    with pytest.raises(PeerTimeout, match="silent"):
        silent.tick(now_ms=64_250)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 200)), min_size=1, max_size=50))
def test_whoever_waits_as_told_keeps_the_rate(bursts: list[tuple[int, int]]) -> None:
    """Frames get through at no more than the rate plus one second's worth, and a patient peer never waits long."""
    ours = session(limits=SessionLimits(frames_per_s_max=100))
    ours.receive(session().opening(), now_ms=0)
    now_ms, frames_count = 0, 1
    for burst, pause_ms in bursts:
        now_ms += pause_ms
        wait_ms = ours.receive(encode_frame(Kind.STATUS, b"") * burst, now_ms=now_ms).wait_ms
        frames_count += burst
        now_ms += wait_ms
        assert frames_count <= 100 + now_ms * 100 / 1000
        assert wait_ms <= burst * 10 + 1


def test_our_own_mistakes_are_local_errors() -> None:
    with pytest.raises(LocalError, match="the session alone"):
        message_frame(Kind.PING, b"", CAPS)
    with pytest.raises(LocalError, match="at most"):
        message_frame(Kind.GET_BLOCKS, bytes(CAPS[Kind.GET_BLOCKS] + 1), CAPS)
    assert message_frame(Kind.STATUS, b"x", CAPS) == encode_frame(Kind.STATUS, b"x")
