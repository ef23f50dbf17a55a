"""Where the messages of one side of a WebSocket begin and end, beside whoever decodes them (RFC 6455, section 5.2)."""

_FINAL, _CONTROL, _MASKED = 0x80, 0x08, 0x80
_LENGTHS = {126: 2, 127: 8}  # how many bytes tell a length that has no room in the second byte


class Frames:
    """Follows the bytes of one side of a connection; nothing is kept of them but the head of a frame that begins."""

    __slots__ = ("_head", "_is_fragmented", "_left", "_opened", "messages")

    def __init__(self) -> None:
        self.messages = 0  # how many have ended
        self._head = b""
        self._left = 0  # bytes of the present frame's content that are still to come
        self._opened = False  # a frame's head is complete, and its content is not
        self._is_fragmented = False  # a frame has ended whose message has not

    @property
    def is_inside(self) -> bool:
        """Whether a frame, or a message, has begun and not ended."""
        return bool(self._head) or self._opened or self._is_fragmented

    def feed(self, data: bytes) -> None:
        """Take the bytes that come next."""
        at = 0
        while at < len(data) or (self._opened and not self._left):
            if self._opened:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
                if not self._left:
                    self._end_frame()
                continue
            wanted = _head_bytes(self._head) - len(self._head)
            self._head += data[at : at + wanted]
            at += wanted
            if len(self._head) >= _head_bytes(self._head):
                self._left, self._opened = _content_bytes(self._head), True

    def _end_frame(self) -> None:
        first, self._head, self._opened = self._head[0], b"", False
        if first & _CONTROL:
            return
        self._is_fragmented = not first & _FINAL
        self.messages += not self._is_fragmented


def _head_bytes(begun: bytes) -> int:
    """How long a frame's head is, as far as what has come of it tells."""
    if len(begun) < 2:
        return 2
    return 2 + _LENGTHS.get(begun[1] & 0x7F, 0) + (4 if begun[1] & _MASKED else 0)


def _content_bytes(head: bytes) -> int:
    length = head[1] & 0x7F
    return int.from_bytes(head[2 : 2 + _LENGTHS[length]], "big") if length in _LENGTHS else length
