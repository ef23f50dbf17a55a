"""Whether this node may sign, and what it has decided to sign, noted in the guard first."""

from collections.abc import Sequence

from node.consensus.guard import GuardState, Prepared
from node.consensus.messages import Kind, Statement, Unsigned
from node.consensus.outbox import Outbox


class Signer:
    """The own address and guard, or neither in an observer. It holds no key: the shell signs what `Ready` lists."""

    def __init__(self, address: bytes | None, guard: GuardState | None) -> None:
        if address is not None and (guard is None or guard.address != address):
            raise ValueError("a node with an address needs the guard of that address")
        self.address = address
        self.guard = guard if address is not None else None

    def active(self, height: int, validators: Sequence[bytes]) -> bool:
        """Whether it takes part at this height: a member whose guard knows all that it has promised there."""
        guard = self.guard
        return (
            guard is not None
            and self.address in validators
            and not guard.lost
            and height > guard.floor
            and height >= guard.height
        )

    def promised(self, kind: Kind, height: int) -> Statement | None:
        """The statement of this kind with the highest round that the guard holds for this height."""
        if self.guard is None or self.guard.height != height:
            return None
        return self.guard.signed.get(kind)

    def sign(self, out: Outbox, unsigned: Sequence[Unsigned], prepared: Prepared | None = None) -> bool:
        """Ask for these signatures if the guard allows every one, noting `prepared` with them; else for none."""
        guard = self.guard
        if guard is None or not all(guard.may_sign(each.statement, prepared) for each in unsigned):
            return False
        new = [each.statement for each in unsigned if not guard.has_signed(each.statement)]
        if new:
            guard.note_signed(new, prepared)
        for each in unsigned:
            out.sign(each)
        return True
