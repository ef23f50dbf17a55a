"""Asks the process of this folder whether it lives, as a container does: `python -m cluster.healthcheck [CONFIG]`.

Nothing but the standard library is loaded, since it is run every few seconds beside each process.
"""

import contextlib
import http.client
import ipaddress
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 3.0
# By the name of a configuration file: where it says what is listened on, and the variable that goes before it.
BINDS = {
    "bootnode.toml": (("bind",), "PSEPHOS_BOOTNODE_BIND", "127.0.0.1:30300"),
    "node.toml": (("rpc", "bind"), "PSEPHOS_NODE_RPC__BIND", "127.0.0.1:8001"),
    "gateway.toml": (("bind",), "PSEPHOS_GATEWAY_BIND", "127.0.0.1:8000"),
}


class Unhealthy(Exception):
    """There is nothing to ask, or the answer is none; the message says which."""


def find_config(folder: Path) -> Path:
    """The one configuration file in `folder` or in the folders of it. Raises Unhealthy."""
    found = [path for name in BINDS for path in (*folder.glob(name), *folder.glob(f"*/{name}"))]
    if len(found) != 1:
        raise Unhealthy(f"{folder} holds {len(found)} configuration files, expected one")
    return found[0]


def endpoint(config: Path, environment: Mapping[str, str]) -> tuple[str, int]:
    """Host and port at which the process of `config` can be asked from its own host. Raises Unhealthy."""
    if config.name not in BINDS:
        raise Unhealthy(f"{config} is none of {', '.join(BINDS)}")
    keys, variable, default = BINDS[config.name]
    try:
        value: object = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unhealthy(f"{config}: {error}") from None
    for key in keys:
        value = value.get(key, {}) if isinstance(value, dict) else {}
    text = environment.get(variable) or (value if isinstance(value, str) else default)
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal():
        raise Unhealthy(f"{config}: '{text}' is not HOST:PORT")
    return _reachable(host), int(port)


def _reachable(host: str) -> str:
    """Where to ask who listens on `host`: the loopback address for one that means every interface."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            return "127.0.0.1" if address.version == 4 else "::1"
    return host


def check(host: str, port: int) -> None:
    """Ask GET /health. Raises Unhealthy."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise Unhealthy(f"{host}:{port} does not answer: {error}") from None
    finally:
        connection.close()
    if status != 200:
        raise Unhealthy(f"{host}:{port} answers /health with {status}")


def main(arguments: Sequence[str]) -> int:
    """0 when it lives, else 1 with one sentence."""
    try:
        config = Path(arguments[0]) if arguments else find_config(Path.cwd())
        check(*endpoint(config, os.environ))
    except Unhealthy as error:
        print(f"unhealthy: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
