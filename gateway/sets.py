"""Which validators decide which height, pure: the sets since block 0, each named by a header that is proven.

Or by an override that this verifier's own operator has given: see `node.consensus.override`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from gateway.verify import NotProven, check_validators
from node.chain.block import Header
from node.chain.domain import Domain
from node.consensus.certificate import Certificate, verify_certificate
from node.consensus.override import Override, OverrideError, override_after, verify_override


def check_overrides(overrides: Iterable[Override], genesis_hash: bytes) -> None:
    """Raise OverrideError unless each is of this network and signed by all validators that it names."""
    for override in overrides:
        if override.domain.genesis_hash != genesis_hash:
            raise OverrideError(f"the override of height {override.height} is of another network")
        verify_override(override)


def deciders(
    header: Header, validators: tuple[bytes, ...], overrides: Iterable[Override]
) -> tuple[tuple[bytes, ...], Override | None]:
    """Who decides the block of `header`: the `validators` that its parent names, or those of an override, and that."""
    for override in overrides:
        if (override.height + 1, override.parent_hash) == (header.number, header.parent_hash):
            return override.validators, override
    return validators, None


class ValidatorSets:
    """Complete from height 1 up to that after the verified head: a verified header stands behind each entry."""

    def __init__(self, entries: Sequence[tuple[int, tuple[bytes, ...]]], overrides: tuple[Override, ...] = ()) -> None:
        """`entries`: (first height, sorted validators), ascending; the first is that of height 1. Raises ValueError."""
        self.overrides = overrides
        heights = [height for height, _ in entries]
        if not heights or heights[0] != 1 or heights != sorted(set(heights)) or not all(one for _, one in entries):
            raise ValueError("validator sets begin with height 1 and ascend")
        self._heights = heights
        self._sets = [validators for _, validators in entries]

    @property
    def latest(self) -> tuple[bytes, ...]:
        """The set that was named last."""
        return self._sets[-1]

    def at(self, height: int) -> tuple[bytes, ...]:
        """The validators that decide a height, from 1 on. Of heights above what is verified: the last set known."""
        return self._sets[max(bisect_right(self._heights, height) - 1, 0)]

    def note(self, header: Header, validators: tuple[bytes, ...]) -> None:
        """A verified header names these validators for the next height. Raises NotProven where it does not.

        Where an override follows that header, it is the override's that decide.
        """
        check_validators(header, validators)
        self._enter(header.number + 1, validators)
        self.override_after(header)

    def override_after(self, header: Header) -> None:
        """Where an override follows this verified header, let the validators that it names decide what comes next."""
        override = override_after(header, self.overrides)
        if override is not None:
            self._enter(header.number + 1, override.validators)

    def check_overrides_fit(self, head: Header) -> None:
        """Raise OverrideError where what is verified up to `head` contradicts an override: its quorum was not lost."""
        for override in self.overrides:
            at_it = head.number == override.height and head.hash != override.parent_hash
            if at_it or (head.number > override.height and self.at(override.height + 1) != override.validators):
                raise OverrideError(
                    f"the override of height {override.height} contradicts what is verified here up to block "
                    f"{head.number}, so its quorum was not lost: do not use it"
                )

    def _enter(self, height: int, validators: tuple[bytes, ...]) -> None:
        if self._heights[-1] == height:  # an override in place of what the header names
            self._sets[-1] = validators
        elif validators != self._sets[-1]:
            self._heights.append(height)
            self._sets.append(validators)

    def decide(self, header: Header) -> tuple[bytes, ...]:
        """The validators that decide the height of a header at or above the last change, by an override if need be."""
        deciding, override = deciders(header, self._sets[-1], self.overrides)
        if override is not None:
            self._enter(header.number, deciding)
        return deciding

    def prove(self, header: Header, certificate: Certificate, validators: tuple[bytes, ...], domain: Domain) -> None:
        """Take a change that lies above the last one known. Raises PeerError where its certificate does not hold."""
        if header.number < self._heights[-1]:
            raise NotProven(f"the change of the validators in block {header.number} is not above the last one")
        verify_certificate(certificate, header, self.decide(header), domain)
        self.note(header, validators)

    def entries(self) -> list[tuple[int, tuple[bytes, ...]]]:
        """What the constructor takes."""
        return list(zip(self._heights, self._sets, strict=True))

    def copy(self) -> "ValidatorSets":
        """An independent copy, to try something on."""
        return ValidatorSets(self.entries(), self.overrides)
