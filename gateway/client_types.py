"""What the client library returns: plain dictionaries with known members."""

from typing import Literal, NotRequired, TypedDict

Status = Literal["confirmed", "pending", "rejected", "unknown"]


class _Record(TypedDict):
    transaction_id: str
    election_id: int | str
    record_id: NotRequired[str | None]
    transaction_hash: NotRequired[str | None]
    block_number: NotRequired[int | None]
    block_hash: NotRequired[str | None]
    ballot_index: NotRequired[int | None]


class VoteReceipt(_Record):
    """What became of a submitted vote; `warning` says what a caller should know, or is None."""

    status: Literal["confirmed", "pending"]
    validator: str | None
    level: int
    warning: str | None


class ConfirmationStatus(_Record):
    """What is known of a vote."""

    status: Status
    source: Literal["poa", "journal"]
    confirmations: int
    reason: NotRequired[str]
    level: NotRequired[int]


class OptionCount(TypedDict):
    """One option's count; the percentage is of the open ballots."""

    option: int
    name: str
    count: int
    percentage: float


class ElectionResults(TypedDict):
    """A proven tally."""

    election_id: int | str
    title: str
    state: str
    results: list[OptionCount]
    open_count: int
    sealed_count: int
    sealed: bool
    total: int
    pending: int
    preliminary: bool
    as_of_block: int
    block_number: int
    block_hash: str
    source: Literal["poa", "journal"]
    stale: bool
    verified: bool


class BlockchainState(TypedDict):
    """The verified head, and an election's totals at it."""

    chain_id: int
    genesis_hash: str
    height: int
    block_hash: str
    timestamp: int
    level: int
    validators: list[str]
    validators_reachable: int
    election_id: int | str
    election_state: str
    total: int
    pending: int
    stale: bool


class IntegrityReport(TypedDict):
    """What a check of an election's whole chain found."""

    job_id: str
    election_id: int | str
    status: Literal["running", "complete", "failed"]
    valid: bool | None
    checks: dict[str, bool]
    error: str | None
    blocks_checked: int
    blocks_total: int
    progress: float
    ballots_counted: int
    results: list[int]
    sealed_count: int
    block_hash: str | None
    validators: list[str]
    distrusted: dict[str, str]
    source: str
    started_at: str


class ValidatorReport(TypedDict):
    """One validator as it was found just now."""

    node_id: str
    rpc_url: str
    p2p_url: str
    status: Literal["healthy", "degraded", "unreachable"]
    height: int | None
    lag: int | None
    latency_ms: float | None
    last_error: str | None
    last_seen_at: str | None
    address: str | None
