"""`host:port`, pure: where a peer can be dialled; a name, an IPv4 address, or an IPv6 address in brackets."""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from node.chain.errors import PeerError

HOST_CHARACTERS_MAX = 253  # RFC 1035
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}|0")


class InvalidEndpoint(PeerError):
    """The text is no `host:port`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host (without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str, *, port_min: int = 1) -> Endpoint:
    """The endpoint that `text` names. Raises InvalidEndpoint.

    `port_min` 0 is for addresses to bind, where 0 lets the system choose.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port_text) or not port_min <= (port := int(port_text)) <= 65535:
        raise InvalidEndpoint(f"endpoint {text[:300]!r}: expected host:port with a port from {port_min} to 65535")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Endpoint(str(IPv6Address(host[1:-1])), port)
        except ValueError:
            raise InvalidEndpoint(f"endpoint {text[:300]!r}: expected an IPv6 address in the brackets") from None
    if len(host) > HOST_CHARACTERS_MAX or not _NAME.fullmatch(host):
        raise InvalidEndpoint(f"endpoint {text[:300]!r}: expected a host name, an IPv4 address or a bracketed IPv6 one")
    return Endpoint(host, port)


def is_wildcard(host: str) -> bool:
    """Whether `host` stands for every address of a machine: good to bind, and nothing that anybody can dial."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return not host
