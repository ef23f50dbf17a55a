"""Which Host headers a listener answers to: a page of a stranger whose name was turned to this address is none."""

import ipaddress
from collections.abc import Collection

ANY = "*"
LOCAL = "localhost"


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


def is_allowed(header: str | None, hosts: Collection[str]) -> bool:
    """Whether a request with this Host header is answered. An address, and no header, are no name to be rebound."""
    if not header or ANY in hosts:
        return True
    host = host_of(header)
    return host == LOCAL or is_address(host) or host in hosts
