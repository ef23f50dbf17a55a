"""The statements received for one height, at most one of each validator for each kind and round."""

from node.consensus.evidence import Evidence
from node.consensus.messages import Kind, SignedStatement


class StatementPool:
    """Counts statements, finds quorums and contradictions. Of each validator and kind, the highest rounds are kept."""

    def __init__(self, rounds_max: int) -> None:
        self._rounds_max = rounds_max
        self._steps: dict[Kind, dict[int, dict[bytes, SignedStatement]]] = {kind: {} for kind in Kind}
        self._accused: set[tuple[bytes, Kind]] = set()  # one piece of evidence of each kind is enough
        self.reached: dict[bytes, int] = {}  # the highest round in which each validator is known to have been

    def add(self, signed: SignedStatement, signer: bytes) -> Evidence | None:
        """Take in an authentic statement. A second one that contradicts the first is not counted: it is evidence."""
        statement = signed.statement
        self.note_reached(signer, statement.round)
        rounds = self._steps[statement.kind]
        first = rounds.setdefault(statement.round, {}).setdefault(signer, signed)
        if first.statement != statement:
            if (signer, statement.kind) in self._accused:
                return None
            self._accused.add((signer, statement.kind))
            return Evidence(signer, first, signed)
        if first is signed:
            self._drop_lowest(rounds, signer)
        return None

    def note_reached(self, validator: bytes, round_: int) -> None:
        """Note that this validator has entered `round_`."""
        if round_ > self.reached.get(validator, -1):
            self.reached[validator] = round_

    def count_reached(self, round_: int) -> int:
        """How many validators are known to have entered this round or a later one."""
        return sum(reached >= round_ for reached in self.reached.values())

    def get(self, kind: Kind, round_: int, signer: bytes) -> SignedStatement | None:
        """The statement of this kind and round that this validator made first."""
        return self._steps[kind].get(round_, {}).get(signer)

    def matching(self, kind: Kind, round_: int, block_hash: bytes) -> tuple[SignedStatement, ...]:
        """The statements for this block, in the order of their signers' addresses."""
        step = self._steps[kind].get(round_, {})
        return tuple(step[signer] for signer in sorted(step) if step[signer].statement.block_hash == block_hash)

    def quorums(self, kind: Kind, needed: int) -> list[tuple[int, bytes]]:
        """Each (round, block hash) for which `needed` validators have made a statement of this kind."""
        found: list[tuple[int, bytes]] = []
        for round_, step in self._steps[kind].items():
            if len(step) < needed:
                continue
            hashes = [signed.statement.block_hash for signed in step.values()]
            found.extend((round_, each) for each in dict.fromkeys(hashes) if each and hashes.count(each) >= needed)
        return found

    def _drop_lowest(self, rounds: dict[int, dict[bytes, SignedStatement]], signer: bytes) -> None:
        held = [round_ for round_, step in rounds.items() if signer in step]
        if len(held) > self._rounds_max:
            lowest = min(held)
            del rounds[lowest][signer]
            if not rounds[lowest]:
                del rounds[lowest]
