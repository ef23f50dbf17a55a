"""Frames and the send queue: every cut of the stream gives the same frames, and every bound holds."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.p2p.framing import FrameDecoder, MalformedFrame, encode_frame
from node.p2p.kinds import Kind, payload_bytes_max
from node.p2p.outbox import Outbox

CAPS = dict.fromkeys(Kind, 300)
frames = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=300)), max_size=20)


def drain(decoder: FrameDecoder) -> list[tuple[Kind, bytes]]:
    found = []
    while (frame := decoder.next_frame(CAPS)) is not None:
        found.append(frame)
    return found


def test_the_bytes_of_a_frame() -> None:
    assert encode_frame(Kind.CONSENSUS, b"abc").hex() == "00000003" + "11" + "616263"


@given(frames, st.lists(st.integers(1, 400), max_size=60))
def test_any_cut_of_the_stream_gives_the_same_frames(sent: list[tuple[Kind, bytes]], cuts: list[int]) -> None:
    stream = b"".join(encode_frame(kind, payload) for kind, payload in sent)
    decoder = FrameDecoder()
    found = []
    for cut in [*cuts, len(stream)]:
        decoder.feed(stream[:cut])
        found += drain(decoder)
        stream = stream[cut:]
    assert found == sent
    assert decoder.pending_bytes == 0


@given(st.binary(max_size=600))
def test_any_bytes_are_frames_or_an_error(data: bytes) -> None:
    """And what is held back is no more than a frame."""
    decoder = FrameDecoder()
    decoder.feed(data)
    try:
        found = drain(decoder)
    except MalformedFrame:
        return
    assert sum(5 + len(payload) for _, payload in found) + decoder.pending_bytes == len(data)
    assert decoder.pending_bytes < 5 + 300


@pytest.mark.parametrize("kind", list(Kind))
def test_the_cap_is_checked_on_the_header_alone(kind: Kind) -> None:
    caps = payload_bytes_max(8 * 1024 * 1024)
    decoder = FrameDecoder()
    decoder.feed(caps[kind].to_bytes(4, "big") + bytes((kind,)))
    assert decoder.next_frame(caps) is None
    decoder = FrameDecoder()
    decoder.feed((caps[kind] + 1).to_bytes(4, "big") + bytes((kind,)))
    with pytest.raises(MalformedFrame, match=kind.name):
        decoder.next_frame(caps)


@pytest.mark.parametrize("number", sorted(set(range(256)) - set(Kind)))
def test_unknown_kinds_are_refused(number: int) -> None:
    decoder = FrameDecoder()
    decoder.feed(bytes(4) + bytes((number,)))
    with pytest.raises(MalformedFrame, match=f"unknown kind {number}"):
        decoder.next_frame(CAPS)


pushes = st.tuples(st.just("push"), st.booleans(), st.binary(min_size=1, max_size=50))
takes = st.tuples(st.just("take"), st.integers(1, 70))


@given(st.lists(pushes | takes, max_size=60))
def test_the_send_queue_is_two_lanes(steps: list[tuple[str, bool, bytes] | tuple[str, int]]) -> None:
    """Against a model: a frame that has begun goes on, then urgent before bulk, each in order, within its bounds."""
    outbox = Outbox(lane_bytes_max=150, lane_frames_max=5)
    urgent: deque[bytes] = deque()
    bulk: deque[bytes] = deque()
    begun = b""
    for step in steps:
        if len(step) == 3:
            lane = urgent if step[1] else bulk
            has_room = len(lane) < 5 and sum(map(len, lane)) + len(step[2]) <= 150
            assert outbox.push(step[2], urgent=step[1]) is has_room
            if has_room:
                lane.append(step[2])
        else:
            expected = b""
            while len(expected) < step[1] and (begun or urgent or bulk):
                begun = begun or (urgent or bulk).popleft()
                part = begun[: step[1] - len(expected)]
                begun = begun[len(part) :]
                expected += part
            assert outbox.take(step[1]) == expected
        assert outbox.bytes_count == len(begun) + sum(map(len, urgent)) + sum(map(len, bulk))
