"""Asks the processes of a network how they are, all at once and each within a short time."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from cluster.network import NODES, Process

TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Health:
    """What a process said of itself. Numbers are None where it said nothing, or has no such number."""

    healthy: bool = False
    ready: bool = False
    detail: str = ""
    height: int | None = None
    round: int | None = None
    peers: int | None = None
    mempool: int | None = None
    ballots: int | None = None
    anchors: int | None = None
    level: int | None = None


def _number(value: object) -> int | None:
    """A JSON number or a 0x-hex quantity; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        try:
            return int(value, 0)
        except ValueError:
            return None
    if isinstance(value, dict):  # a mempool may be told as {"transactions": …}
        return next((number for number in map(_number, value.values()) if number is not None), None)
    return len(value) if isinstance(value, list) else None


class Prober:
    """Keeps one connection to each process; `close` it at the end."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        # trust_env=False: a proxy of the environment has no business between two processes of one machine.
        self._client = httpx.Client(timeout=timeout_s, trust_env=False)
        self._threads = ThreadPoolExecutor(max_workers=10, thread_name_prefix="probe")

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def ask(self, processes: Iterable[Process]) -> dict[str, Health]:
        """The health of each process, by name."""
        wanted = list(processes)
        return dict(zip((p.name for p in wanted), self._threads.map(self._ask, wanted), strict=True))

    def _ask(self, process: Process) -> Health:
        try:
            healthy = self._client.get(f"{process.url}/health")
            ready = self._client.get(f"{process.url}/ready")
            status: dict[str, Any] = {}
            if process.kind in NODES and healthy.is_success:
                status = self._status(process)
            return self._read(healthy, ready, status)
        except httpx.TimeoutException:
            return Health(detail="no answer in time")
        except httpx.HTTPError:
            return Health(detail="no connection")

    def _status(self, process: Process) -> dict[str, Any]:
        call = {"jsonrpc": "2.0", "id": 1, "method": "poa_status", "params": []}
        answer = _object(self._client.post(process.url, json=call))
        result = answer.get("result")
        return result if isinstance(result, dict) else {}

    def _read(self, healthy: httpx.Response, ready: httpx.Response, status: dict[str, Any]) -> Health:
        told = _object(ready)
        detail = "" if ready.is_success else str(told.get("detail") or told.get("reason") or "not ready")
        return Health(
            healthy=healthy.is_success,
            ready=ready.is_success,
            detail=detail,
            height=_number(status.get("height")),
            round=_number(status.get("round")),
            peers=_number(status.get("peerCount")),
            mempool=_number(status.get("mempool")),
            ballots=_number(status.get("ballots")),
            anchors=_number(status.get("anchors")),
            level=_number(told.get("level")),
        )


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
