"""The network shell: listens, dials, keeps one session with each member, and hands messages to the runtime."""

from collections.abc import Callable, Sequence
from pathlib import Path

from node.chain.domain import Domain
from node.chain.signing import SigningKey
from node.p2p.events import PeerEvent, PeerInfo
from node.p2p.kinds import BLOCK_BYTES_MAX_DEFAULT, Kind


class Network:
    """Mutually authenticated sessions with the members of one network. All calls belong to one event loop.

    `bind` is (host, port), port 0 lets the system choose. `advertise` is the `host:port` that peers are told to dial;
    empty means the bound address. `is_member` answers, now, whether an address may connect. `on_event` is called in
    the event loop and must be quick. `head_height` goes into our hello. `bootnodes` are http(s) URLs; `peers_file`
    remembers peers across restarts.
    """

    def __init__(
        self,
        *,
        key: SigningKey,
        domain: Domain,
        bind: tuple[str, int],
        advertise: str,
        name: str,
        is_member: Callable[[bytes], bool],
        on_event: Callable[[PeerEvent], None],
        head_height: Callable[[], int],
        block_bytes_max: int = BLOCK_BYTES_MAX_DEFAULT,
        bootnodes: Sequence[str] = (),
        peers_file: Path | None = None,
        rpc_url: str = "",
    ) -> None:
        raise NotImplementedError("arrives with the sessions")

    async def start(self) -> None:
        """Bind and begin to dial. Raises OSError when the address cannot be bound."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End every session and task; no event comes after this returns."""
        raise NotImplementedError

    @property
    def endpoint(self) -> str:
        """The `host:port` that peers are told to dial; known after `start`."""
        raise NotImplementedError

    def send(self, peer: bytes, kind: Kind, payload: bytes) -> bool:
        """Queue one message. False: not connected, or no room (bulk is refused, an urgent overflow drops the peer)."""
        raise NotImplementedError

    def broadcast(self, kind: Kind, payload: bytes) -> None:
        """Queue one message for every connected peer; it is framed once."""
        raise NotImplementedError

    def peers(self) -> list[PeerInfo]:
        """The open sessions, ordered by address."""
        raise NotImplementedError

    def drop(self, peer: bytes, reason: str) -> None:
        """End the session with `peer`, if there is one; Disconnected follows. It may connect again later."""
        raise NotImplementedError

    def members_changed(self) -> None:
        """Drop the peers for which `is_member` no longer holds, and dial those for which it now does."""
        raise NotImplementedError
