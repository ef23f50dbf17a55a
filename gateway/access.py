"""Who may call, and how often: API keys with scopes, known by their hashes, and rates of clients and voters."""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Literal

from gateway.config import ApiKeyConfig, RatesConfig
from gateway.problems import Problem

Need = Literal["vote", "anchor", "read", "admin", "open"]  # open: asked by whoever watches the process; needs no key

KEY_PREFIX = "psk_"
BUCKETS_MAX = 100_000


def new_api_key() -> tuple[str, str]:
    """A fresh key, to be shown once, and its SHA-256, to be written into the configuration."""
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    return key, hash_api_key(key)


def hash_api_key(key: str) -> str:
    """SHA-256 in hex. A key has 256 random bits, so no slow hash is needed."""
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


class Rate:
    """Token buckets by key, for the keys that came last. `per_s` 0: no limit."""

    def __init__(self, per_s: float, burst: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._now_s = per_s, burst, now_s
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()  # key → (tokens, when)

    @property
    def bounds(self) -> bool:
        """Whether there is a limit."""
        return self._per_s > 0

    def take(self, key: object) -> float:
        """Take one token: 0, or the seconds until there is one."""
        if not self._per_s:
            return 0.0
        now = self._now_s()
        tokens, when = self._buckets.get(key, (float(self._burst), now))
        tokens = min(tokens + (now - when) * self._per_s, float(self._burst))
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) / self._per_s
        self._buckets[key] = (tokens if wait_s else tokens - 1, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)
        return wait_s


class Gatekeeper:
    """Lets callers in."""

    def __init__(self, keys: Sequence[ApiKeyConfig], rates: RatesConfig) -> None:
        self._keys = [(bytes.fromhex(key.sha256), key) for key in keys]
        self._clients = Rate(rates.client_per_s, rates.client_burst)
        self._voters = Rate(rates.voter_per_minute / 60, rates.voter_burst)

    @property
    def asks(self) -> bool:
        """Whether `admit` would refuse anybody."""
        return bool(self._keys) or self._clients.bounds

    @property
    def bounds_rates(self) -> bool:
        """Whether clients or voters may come too often."""
        return self._clients.bounds or self._voters.bounds

    @property
    def asks_for_keys(self) -> bool:
        """Whether callers must have an API key."""
        return bool(self._keys)

    def admit(self, presented: str | None, address: str, need: Need) -> None:
        """Let a request with this key from this address do what `need` says. Raises Problem 401, 403 or 429."""
        if need == "open":
            return
        client = address
        if self._keys:
            key = self._find(presented)
            if key is None:
                raise Problem(401, "no-api-key", "This needs an API key: `Authorization: Bearer KEY`, or `X-API-Key`.")
            if need not in key.scopes and "admin" not in key.scopes:
                raise Problem(403, "scope-missing", f"This API key has not the scope '{need}'.")
            client = key.name
        _refuse(self._clients.take(client), "This client comes too often.")

    def admit_voter(self, nullifier: bytes) -> None:
        """Count one vote of a voter, who is known by the nullifier alone. Raises Problem 429."""
        _refuse(self._voters.take(nullifier), "This voter comes too often.")

    def _find(self, presented: str | None) -> ApiKeyConfig | None:
        if presented is None:
            return None
        digest = hashlib.sha256(presented.encode(errors="replace")).digest()
        found = None
        for known, key in self._keys:  # all of them, whichever fits, so that time tells nothing
            if hmac.compare_digest(known, digest):
                found = key
        return found


def _refuse(wait_s: float, detail: str) -> None:
    if wait_s:
        raise Problem(429, "too-many-requests", detail, retry_after_s=round(wait_s, 3))
