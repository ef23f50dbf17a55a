"""The JSON-RPC listeners of a node: the public one, and the operators'; GET /health and /ready on the public one."""

import logging
from collections.abc import Collection
from dataclasses import dataclass

from aiohttp import web

from node.rpc.api import Api
from node.rpc.dev_accounts import DevAccounts, dev_accounts
from node.rpc.hexes import data
from node.rpc.limits import Limits
from node.rpc.listener import Listener, json_response
from node.rpc.ports import NodePort
from serving.distribution import Calls
from serving.hosts import is_loopback

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Operators:
    """The operators' listener: where it binds, and the secret (32 bytes) that signs the tokens it asks for."""

    bind: tuple[str, int]
    secret: bytes


class RpcServer:
    """The JSON-RPC server of one node.

    Args:
        node: what the methods read.
        bind: host and port; port 0 lets the system choose.
        limits: what one caller may ask for at once.
        hosts: names, besides addresses and localhost, under which it may be reached; "*" for any.
        origins: the origins whose pages may open a WebSocket; other pages may not, and programs that are no page may.
        dev_accounts: whether to sign for callers with the development mnemonic's accounts; where all listeners are on
            loopback.
        operators: where `admin`, `debug` and `txpool` are answered, besides all the rest; None: nowhere.
        calls: where it is noted how long each call took.
    """

    def __init__(
        self,
        node: NodePort,
        bind: tuple[str, int],
        limits: Limits | None = None,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        dev_accounts: bool = False,
        operators: Operators | None = None,
        calls: Calls | None = None,
    ) -> None:
        self._node = node
        self._bind = bind
        limits = limits or Limits()
        self._api = api = Api(node, limits, _accounts(node, bind, operators) if dev_accounts else DevAccounts())
        elsewhere = api.operators.keys() - api.methods.keys()
        calls = calls or Calls()
        self._public = Listener(
            node, api, api.methods, limits, hosts=hosts, origins=origins, elsewhere=elsewhere, calls=calls
        )
        self._public.routes += [web.get("/health", self._health), web.get("/ready", self._ready)]
        self._operators = operators
        self._private = (
            Listener(
                node, api, api.operators, limits, hosts=hosts, origins=origins, secret=operators.secret, calls=calls
            )
            if operators
            else None
        )
        self.address: tuple[str, int] | None = None  # once it has started
        self.operators_address: tuple[str, int] | None = None

    async def start(self) -> tuple[str, int]:
        """Listen; the host and port that were bound for everybody. Raises OSError when a port is taken."""
        self.address = address = await self._public.start(*self._bind)
        if self._private is not None and self._operators is not None:
            try:
                self.operators_address = await self._private.start(*self._operators.bind)
            except OSError:
                await self.stop()
                raise
        return address

    async def stop(self) -> None:
        """Stop listening and end what is running. Harmless when it never started."""
        if self._private is not None:
            await self._private.stop()
        await self._public.stop()
        self._api.close()

    async def _health(self, _request: web.Request) -> web.Response:
        """The process is alive and its event loop turns."""
        head = self._node.chain.head
        name = self._node.name
        return json_response(200, {"status": "ok", "name": name, "height": head.number, "head": data(head.hash)})

    async def _ready(self, _request: web.Request) -> web.Response:
        """Whether this node can serve."""
        ready, reason = self._node.ready()
        return json_response(200 if ready else 503, {"ready": ready, "reason": reason})


def _accounts(node: NodePort, bind: tuple[str, int], operators: Operators | None) -> DevAccounts:
    """What to sign with for callers; nothing where somebody else could call, at whichever listener."""
    hosts = [bind[0], *([operators.bind[0]] if operators else ())]
    elsewhere = [host for host in hosts if not is_loopback(host)]
    if not elsewhere:
        return dev_accounts(node.chain.genesis)
    logger.warning(
        "eth_accounts stays empty: JSON-RPC is bound to %s, and only on loopback does this node sign", elsewhere[0]
    )
    return DevAccounts()
