"""A plain recount of one election, written apart from the contract: what is on the chain, counted one by one."""

from node.chain.domain import Domain


class Box:
    """An election that is always open, to which only gateways cast. `ballots`: nullifier → (record id, content)."""

    def __init__(self, domain: Domain, election: int, options: int) -> None:
        self.ballots: dict[bytes, tuple[bytes, bytes]] = {}
        self.counts = [0] * options
        self.leaves: list[bytes] = []
        self._record_ids: set[bytes] = set()
        network = domain.chain_id.to_bytes(8, "big") + domain.genesis_hash
        self._prefix = b"\x01" + network + b"\x01" + election.to_bytes(32, "big")

    def cast(self, calldata: bytes) -> None:
        """Take in the calldata of a `castBatch` that succeeded."""
        length = int.from_bytes(calldata[68:100], "big")
        packed = calldata[100 : 100 + length]
        while packed:
            size = 69 + int.from_bytes(packed[65:69], "big")
            self._put(packed[:size])
            packed = packed[size:]

    def _put(self, record: bytes) -> None:
        nullifier, record_id, kind, content = record[:32], record[32:64], record[64], record[69:]
        if nullifier in self.ballots or record_id in self._record_ids:
            return
        if kind != 0 or len(content) != 1 or content[0] >= len(self.counts):
            return
        self.ballots[nullifier] = (record_id, content)
        self._record_ids.add(record_id)
        self.counts[content[0]] += 1
        self.leaves.append(self._prefix + record)
