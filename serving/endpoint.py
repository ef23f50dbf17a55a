"""`host:port`, pure: where to listen or to dial; a name, an IPv4 address, or an IPv6 address in brackets."""

import re
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

HOST_CHARACTERS_MAX = 253  # RFC 1035
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}|0")


class Endpoint(NamedTuple):
    """A host (without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind(text: str) -> Endpoint:
    """The endpoint to listen at that `text` names; port 0 lets the system choose one. Raises ValueError."""
    return parse_endpoint(text, port_min=0)


def parse_endpoint(text: str, *, port_min: int = 1) -> Endpoint:
    """The endpoint that `text` names. Raises ValueError."""
    host, colon, port_text = text.rpartition(":")
    if not colon or not host or not _PORT.fullmatch(port_text) or not port_min <= (port := int(port_text)) <= 65535:
        expected = f"expected HOST:PORT, for instance 127.0.0.1:8001, with a port from {port_min} to 65535"
        raise ValueError(f"{expected}, not {text[:300]!r}")
    if host.startswith("[") and host.endswith("]"):
        try:
            return Endpoint(str(IPv6Address(host[1:-1])), port)
        except ValueError:
            raise ValueError(f"expected an IPv6 address in the brackets, not {text[:300]!r}") from None
    if len(host) > HOST_CHARACTERS_MAX or not _NAME.fullmatch(host):
        raise ValueError(f"expected a host name, an IPv4 address or a bracketed IPv6 one, not {text[:300]!r}")
    return Endpoint(host, port)


def is_wildcard(host: str) -> bool:
    """Whether `host` stands for every address of a machine: good to bind, and nothing that anybody can dial."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return not host
