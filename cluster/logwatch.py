"""`psephos monitor`: follows a log over HTTP from outside, and sees to it that it only ever grows."""

import argparse
import json
import os
import re
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from cluster.network import ClusterError
from cluster.verifying import believed_overrides, trusted_domain
from gateway.product import parse_any
from gateway.receipt import InvalidReceipt, LogHead
from gateway.receipt_check import verify_head
from merkle.errors import InvalidProof
from merkle.log import verify_consistency
from node.chain.domain import Domain

TIMEOUT_S = 20.0
HONEST, DISHONEST, UNKNOWN = 0, 1, 2


class Unavailable(RuntimeError):
    """The log could not be looked at; nothing is said about it."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The last head that was verified; hashes in hex."""

    chain_id: int
    genesis_hash: str
    log: str
    size: int
    root: str
    block_number: int
    block_hash: str


def run(options: argparse.Namespace) -> int:
    """Look at the log once, or until it is dishonest."""
    url = options.url.rstrip("/")
    if not re.search(r"/log/[^/]+$", url):
        url += "/log/anchors"
    state = options.state or Path(f"monitor-{url.rpartition('/')[2]}.json")
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
        while True:
            code = _look(client, url, state, options)
            if options.every_s is None or code == DISHONEST:
                return code
            time.sleep(options.every_s)


def _look(client: httpx.Client, url: str, state: Path, options: argparse.Namespace) -> int:
    last = _load(state)
    try:
        head = parse_any(_get(client, f"{url}/head"))
        if not isinstance(head, LogHead):
            raise InvalidReceipt("the head", "another document is served in its place")
        trusted = trusted_domain(options, head.chain_id) or _network_of(last)
        if trusted is None:
            raise ClusterError("which network? Give --genesis FILE, or --genesis-hash HASH, from where you trust it")
        verify_head(head, trusted, overrides=believed_overrides(options, trusted))
        seen = _seen(head)
        if seen.log != url.rpartition("/")[2]:
            raise InvalidReceipt("the head", f"it is that of the log of {seen.log}")
        if last is not None:
            _check_extends(client, url, last, seen, state)
    except (InvalidReceipt, InvalidProof) as error:
        print(f"✗ {url} is not honest: {error}", file=sys.stderr)
        return DISHONEST
    except Unavailable as error:
        print(f"? {url}: {error}", file=sys.stderr)
        return UNKNOWN
    _save(state, seen)
    before = "first look:" if last is None else f"grew from {last.size} to"
    print(f"✓ {before} {seen.size} entries after block {seen.block_number}, root {seen.root}", flush=True)
    return HONEST


def _check_extends(client: httpx.Client, url: str, last: Seen, seen: Seen, state: Path) -> None:
    """Raises InvalidProof unless what is seen now is a later state of what was seen before."""
    if (last.genesis_hash, last.log) != (seen.genesis_hash, seen.log):
        raise ClusterError(f"{state} remembers another log: use another --state")
    if seen.block_number < last.block_number:
        raise Unavailable(f"it is at block {seen.block_number}, and was at {last.block_number}: it is behind")
    if seen.block_number == last.block_number and seen.block_hash != last.block_hash:
        raise InvalidProof(f"there are two final blocks {seen.block_number}")
    proof: list[bytes] = []
    if 0 < last.size < seen.size:
        proof = _consistency(_get(client, f"{url}/proof/consistency?from={last.size}&to={seen.size}"))
    verify_consistency(
        old_size=last.size,
        new_size=seen.size,
        proof=proof,
        old_root=bytes.fromhex(last.root),
        new_root=bytes.fromhex(seen.root),
    )


def _consistency(body: bytes) -> list[bytes]:
    try:
        return [bytes.fromhex(part.removeprefix("0x")) for part in json.loads(body)["proof"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InvalidProof("no consistency proof is served") from None


def _get(client: httpx.Client, url: str) -> bytes:
    try:
        response = client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"no answer: {error or type(error).__name__}") from None
    if response.status_code != 200:
        raise Unavailable(f"status {response.status_code}: {response.text[:200]}")
    return response.content


def _seen(head: LogHead) -> Seen:
    return Seen(
        head.chain_id,
        head.genesis_hash.hex(),
        "anchors" if head.election is None else str(head.election),
        head.size,
        head.root.hex(),
        head.header.number,
        head.header.hash.hex(),
    )


def _network_of(last: Seen | None) -> Domain | None:
    return None if last is None else Domain(last.chain_id, bytes.fromhex(last.genesis_hash))


def _load(state: Path) -> Seen | None:
    """What was seen last; None where nothing was. A damaged memory is an error, since it would excuse a fork."""
    try:
        return Seen(**json.loads(state.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ClusterError(f"{state} cannot be read as a monitor's memory: {error}") from None


def _save(state: Path, seen: Seen) -> None:
    fresh = state.with_name(state.name + ".new")
    try:
        with open(fresh, "w", encoding="utf-8") as file:
            json.dump(asdict(seen), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, state)
    except OSError as error:
        raise ClusterError(f"{state} cannot be written: {error.strerror or error}") from None
