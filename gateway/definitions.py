"""Elections' definitions from storage proofs: the contract's own reading, over slots that a state root proves."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from node.chain.contracts import elections
from node.chain.contracts.addresses import ELECTIONS

# Slots of the Elections contract → their values, proven. Raises NoValidator.
Prove = Callable[[Sequence[int]], Awaitable[list[int]]]


@dataclass(frozen=True, slots=True)
class Election:
    """An election's definition, proven, and its state at the block where it was read. Times in seconds, 0 for none."""

    id: int
    title: str
    options: tuple[str, ...]
    kinds: int
    opens_at: int
    closes_at: int
    delivery_grace_s: int
    state: int
    creator: bytes
    registrars: tuple[bytes, ...]
    key_check: bytes


class ProvenSlots:
    """Slots as far as they are proven: a missing one reads as 0, and is noted."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {}
        self.missing: list[int] = []

    def storage(self, address: bytes, slot: int) -> int:
        """The slot's value, or 0 until it is proven."""
        if address != ELECTIONS:
            raise ValueError(f"0x{address.hex()} is not the contract whose slots these are")
        if slot not in self.known:
            self.missing.append(slot)
        return self.known.get(slot, 0)

    def set_storage(self, address: bytes, slot: int, value: int) -> None:
        """Nobody writes here."""
        raise TypeError("proven slots are for reading")


async def read_election(id_: int, timestamp: int, prove: Prove) -> Election | None:
    """The election in the state that `prove` shows, at a block of this timestamp; None: there is none, proven, too."""
    slots = ProvenSlots()
    slots.missing = elections.definition_slots(id_)
    found: elections.Definition | None = None
    while slots.missing:
        wanted, slots.missing = slots.missing, []
        slots.known.update(zip(wanted, await prove(wanted), strict=True))
        found = elections.definition(slots, id_)
    if found is None:
        return None
    return Election(
        id_,
        found.title,
        found.options,
        found.election.kinds,
        found.election.opens_at,
        found.election.closes_at,
        found.election.delivery_grace,
        found.election.state_at(timestamp),
        found.election.creator,
        found.registrars,
        found.key_check,
    )


async def refresh_election(known: Election, timestamp: int, prove: Prove) -> Election:
    """The same election at another block: only its schedule can have changed, and only by closing or cancelling.

    Raises NoValidator, or ValueError where it is not there: then the chain is another one.
    """
    slots, wanted = ProvenSlots(), elections.definition_slots(known.id)[:2]
    slots.known.update(zip(wanted, await prove(wanted), strict=True))
    found = elections.read_election(slots, known.id)
    if found is None:
        raise ValueError(f"election {known.id} was on this chain and is no more")
    return replace(known, closes_at=found.closes_at, state=found.state_at(timestamp))
