"""Which Host headers a listener answers to: a page of a stranger whose name was turned to this address is none."""

import ipaddress
import re
from collections.abc import Iterable

ANY = "*"
LOCAL = "localhost"
KNOWN_MAX = 64  # headers whose answer is remembered; each client sends one and the same all the time

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,253}", re.ASCII)
_PLAIN = re.compile(r"[a-z0-9_-]{1,63}", re.ASCII)


def parse_host(text: str) -> str:
    """A setting that lists a host: a name without a port, or "*" for any. Raises ValueError."""
    if text != ANY and not _NAME.fullmatch(text):
        raise ValueError(f"expected a host name without a port, or \"*\", not '{text}'")
    return text.rstrip(".")


def host_of(header: str) -> str:
    """The name or IP address in a Host header, in small letters, without its port."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def is_address(host: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine alone."""
    return host == LOCAL or (is_address(host) and ipaddress.ip_address(host).is_loopback)


class Hosts:
    """The names under which a listener answers, besides addresses and localhost.

    An address, and no header at all, are no name that a stranger could turn to this machine.

    Args:
        names: those that are listed; "*" for any.
        plain: whether names without a dot are answered, too, as those of neighbours in a container network are: nobody
            can have one registered.
    """

    def __init__(self, names: Iterable[str], *, plain: bool = False) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._plain = plain
        self._known: set[str | None] = {None, ""}

    def allow(self, header: str | None) -> bool:
        """Whether a request with this Host header is answered."""
        if header in self._known:
            return True
        if header is None or not self._fits(header):
            return False
        if len(self._known) < KNOWN_MAX:
            self._known.add(header)
        return True

    def _fits(self, header: str) -> bool:
        if ANY in self._names:
            return True
        host = host_of(header)
        if host == LOCAL or is_address(host) or host in self._names:
            return True
        return self._plain and not header.strip().startswith("[") and bool(_PLAIN.fullmatch(host))
