"""The send queue of one peer, pure: two bounded lanes, the urgent one first, cut into pieces for the socket."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Lane:
    bytes_max: int
    frames_max: int
    frames: deque[bytes] = field(default_factory=deque)
    bytes_count: int = 0

    def push(self, frame: bytes) -> bool:
        if len(self.frames) >= self.frames_max or self.bytes_count + len(frame) > self.bytes_max:
            return False
        self.frames.append(frame)
        self.bytes_count += len(frame)
        return True

    def pop(self) -> bytes:
        frame = self.frames.popleft()
        self.bytes_count -= len(frame)
        return frame


class Outbox:
    """Frames that wait for the socket. A frame that has begun to leave is finished before any other begins."""

    __slots__ = ("_bulk", "_rest", "_urgent")

    def __init__(self, *, lane_bytes_max: int, lane_frames_max: int) -> None:
        self._urgent = _Lane(lane_bytes_max, lane_frames_max)
        self._bulk = _Lane(lane_bytes_max, lane_frames_max)
        self._rest = memoryview(b"")

    def push(self, frame: bytes, *, urgent: bool) -> bool:
        """Queue one frame; False when its lane has no room."""
        return (self._urgent if urgent else self._bulk).push(frame)

    def take(self, bytes_max: int) -> bytes:
        """The next bytes to write, at most `bytes_max`; empty when nothing waits."""
        parts: list[bytes | memoryview] = []
        room = bytes_max
        while room > 0:
            if not self._rest:
                lane = self._urgent if self._urgent.frames else self._bulk
                if not lane.frames:
                    break
                frame = lane.pop()
                if len(frame) <= room:
                    parts.append(frame)
                    room -= len(frame)
                    continue
                self._rest = memoryview(frame)
            part = self._rest[:room]
            self._rest = self._rest[len(part) :]
            parts.append(part)
            room -= len(part)
        return b"".join(parts)

    @property
    def bytes_count(self) -> int:
        """Bytes that wait, the rest of a frame that has begun to leave among them."""
        return len(self._rest) + self._urgent.bytes_count + self._bulk.bytes_count
