"""Which validators decide which height, pure: the sets since block 0, each named by a header that is proven."""

from bisect import bisect_right
from collections.abc import Sequence

from gateway.verify import NotProven, check_validators
from node.chain.block import Header
from node.chain.domain import Domain
from node.consensus.certificate import Certificate, verify_certificate


class ValidatorSets:
    """Complete from height 1 up to that after the verified head: a verified header stands behind each entry."""

    def __init__(self, entries: Sequence[tuple[int, tuple[bytes, ...]]]) -> None:
        """`entries`: (first height, sorted validators), ascending; the first is that of height 1. Raises ValueError."""
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
        """A verified header names these validators for the next height. Raises NotProven where it does not."""
        check_validators(header, validators)
        if validators != self._sets[-1]:
            self._heights.append(header.number + 1)
            self._sets.append(validators)

    def prove(self, header: Header, certificate: Certificate, validators: tuple[bytes, ...], domain: Domain) -> None:
        """Take a change that lies above the last one known. Raises PeerError where its certificate does not hold."""
        if header.number < self._heights[-1]:
            raise NotProven(f"the change of the validators in block {header.number} is not above the last one")
        verify_certificate(certificate, header, self._sets[-1], domain)
        self.note(header, validators)

    def entries(self) -> list[tuple[int, tuple[bytes, ...]]]:
        """What the constructor takes."""
        return list(zip(self._heights, self._sets, strict=True))

    def copy(self) -> "ValidatorSets":
        """An independent copy, to try something on."""
        return ValidatorSets(self.entries())
