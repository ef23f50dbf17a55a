"""Where WebSocket messages begin and end, however their bytes are cut, against a count of what was put together."""

from hypothesis import given
from hypothesis import strategies as st

from serving.frames import Frames

CLOSE, PING = 8, 9


@st.composite
def frames(draw: st.DrawFn) -> list[tuple[bytes, bool, bool]]:
    """(bytes, carries data, is final) of frames as a client or a server makes them."""
    found = []
    for _ in range(draw(st.integers(0, 6))):
        is_data = draw(st.booleans())
        is_final = draw(st.booleans()) if is_data else True
        opcode = draw(st.sampled_from([0, 1, 2] if is_data else [CLOSE, PING]))
        length = draw(st.sampled_from([0, 1, 5, 125, 126, 200, 65_535, 65_536]) if is_data else st.integers(0, 125))
        mask = draw(st.sampled_from([b"", b"\x81\x7f\xfe\x00"]))
        told = bytes((length,)) if length < 126 else b"\x7e" + length.to_bytes(8, "big")[6:]
        if length > 65_535:
            told = b"\x7f" + length.to_bytes(8, "big")
        head = bytes((0x80 * is_final | opcode, told[0] | 0x80 * bool(mask))) + told[1:] + mask
        found.append((head + b"\x89" * length, is_data, is_final))
    return found


@given(frames(), st.data())
def test_cut_anywhere(sent: list[tuple[bytes, bool, bool]], data: st.DataObject) -> None:
    stream = b"".join(raw for raw, _, _ in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    followed = Frames()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        followed.feed(stream[start:end])
        at, messages, is_fragmented, is_cut = 0, 0, False, False
        for raw, is_data, is_final in sent:
            at += len(raw)
            if at > end:
                is_cut = at - len(raw) < end
                break
            if is_data:
                messages, is_fragmented = messages + is_final, not is_final
        assert (followed.messages, followed.is_inside) == (messages, is_fragmented or is_cut)
