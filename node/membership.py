"""Who may connect to this node, and what a change of the validators means for the node itself."""

import logging
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

LEAVING_S = 10.0  # a removed validator stays connected this long, so that it gets the block that removes it


class Membership:
    """The validators of the next height, the observers that the operator lists, and those who have just been removed.

    Args:
        address: this node's own.
        signs: whether it signs when it is a validator.
        now_s: monotonic seconds.
    """

    def __init__(
        self,
        address: bytes,
        *,
        signs: bool,
        validators: Iterable[bytes],
        observers: Iterable[bytes],
        now_s: Callable[[], float],
    ) -> None:
        self._address = address
        self._signs = signs
        self._validators = frozenset(validators)
        self._observers = frozenset(observers)
        self._now_s = now_s
        self._leaving: dict[bytes, float] = {}  # until when

    def __contains__(self, address: bytes) -> bool:
        """Whether this address may connect now."""
        if address in self._validators or address in self._observers:
            return True
        until_s = self._leaving.get(address)
        return until_s is not None and self._now_s() < until_s

    def describe(self) -> str:
        """What this node is, for its log."""
        if self._address not in self._validators:
            return "an observer, which signs nothing"
        return "a validator" if self._signs else "a validator that is told not to sign (sign = false)"

    def change(self, validators: Iterable[bytes], height: int) -> bool:
        """Take in who decides `height` and those above it; whether that is a change."""
        chosen = frozenset(validators)
        if chosen == self._validators:
            return False
        now_s = self._now_s()
        removed, added = self._validators - chosen, chosen - self._validators
        self._leaving = {each: at for each, at in self._leaving.items() if at > now_s and each not in chosen}
        self._leaving.update(dict.fromkeys(removed, now_s + LEAVING_S))
        self._validators = chosen
        log.warning(
            "%d validators from height %d on; added: %s; removed: %s",
            len(chosen), height, _names(added), _names(removed),
        )  # fmt: skip
        if self._address in added:
            log.warning("this node is %s from height %d on", self.describe(), height)
        if self._address in removed:
            log.warning(
                "this node is no validator from height %d on: it signs nothing more, and follows the chain as long as "
                "its peers list it among their p2p.observers",
                height,
            )
        return True


def _names(addresses: Iterable[bytes]) -> str:
    return ", ".join(f"0x{address.hex()}" for address in sorted(addresses)) or "none"
