"""Messages of heights to come, kept within bounds until their height is decided next."""

from node.consensus.events import Policy
from node.consensus.messages import Kind, Message


class FutureMessages:
    """For each validator a bounded number and size, so that a faulty one crowds out only itself."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._held: dict[bytes, dict[tuple[int, int, Kind], Message]] = {}

    def add(self, message: Message, sender: bytes) -> None:
        """Keep it if there is room; the first of each height, round and kind stays."""
        statement = message.statement
        held = self._held.setdefault(sender, {})
        bytes_held = sum(each.bytes_count for each in held.values())
        if len(held) < self._policy.future_messages_max and (
            bytes_held + message.bytes_count <= self._policy.future_bytes_max
        ):
            held.setdefault((statement.height, statement.round, statement.kind), message)

    def take(self, height: int) -> list[tuple[Message, bytes]]:
        """The messages of this height, which are forgotten with those of all heights below."""
        taken: list[tuple[Message, bytes]] = []
        for sender in list(self._held):
            held = self._held[sender]
            for key in [key for key in held if key[0] <= height]:
                message = held.pop(key)
                if key[0] == height:
                    taken.append((message, sender))
            if not held:
                del self._held[sender]
        return taken
