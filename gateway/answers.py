"""What the gateway answers, as pydantic models: they document the HTTP API, and tests hold each answer to them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

HASH = "0x3f1c9a1f6d0e4f5b8a7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a"
BLOCK = "0x9d3b5c7e1f2a4b6c8d0e2f4a6b8c0d2e4f6a8b0c2d4e6f8a0b2c4d6e8f0a2b4c"
ADDRESS = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8"
BATCH = "2f1e1a52-0b7f-4b0a-9d0c-6c2f5f5d9a11"
ROOT = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
TIME = "2026-11-21T12:00:00Z"

Source = Literal["poa", "journal"]
AnchorStatus = Literal["pending", "processing", "completed", "failed"]

_hash = Field(pattern="^0x[0-9a-f]{64}$", examples=[HASH])
_block_hash = Field(pattern="^0x[0-9a-f]{64}$", examples=[BLOCK])
Hash = Annotated[str, _hash]
BlockHash = Annotated[str, _block_hash]
OptionalHash = Annotated[str | None, Field(examples=[HASH])]
OptionalBlockHash = Annotated[str | None, Field(examples=[BLOCK])]
Height = Annotated[int, Field(ge=0, examples=[1207])]
OptionalHeight = Annotated[int | None, Field(examples=[1207])]
Index = Annotated[int | None, Field(description="its place in the log, from 0", examples=[41])]
ElectionIdOut = Annotated[int | str, Field(description="a string of digits above 2^53 - 1", examples=[1])]
Level = Annotated[int, Field(ge=1, le=5, description="of degradation: 1 is all validators", examples=[1])]
Warning_ = Annotated[str, Field(examples=["no quorum of validators: records wait in the journal"])]
Uuid = Annotated[str, Field(examples=["0f8e7d6c-5b4a-5f3e-8d2c-1b0a9f8e7d6c"])]
BatchId = Annotated[str, Field(examples=[BATCH])]
MerkleRoot = Annotated[str, Field(pattern="^[0-9a-f]{64}$", examples=[ROOT])]
Time = Annotated[str, Field(description="ISO 8601, UTC", examples=[TIME])]
OptionalTime = Annotated[str | None, Field(description="ISO 8601, UTC", examples=[TIME])]


class Answer(BaseModel):
    """An answer. Members may be added in later versions; none is taken away."""

    model_config = ConfigDict(extra="allow")


class Election(Answer):
    """An election's definition and state."""

    election_id: ElectionIdOut
    title: Annotated[str, Field(examples=["Board 2026"])]
    options: Annotated[list[str], Field(examples=[["Ada", "Grace"]])]
    kinds: Literal["open", "sealed", "both"] = Field(examples=["both"])
    opens_at: int | None = Field(description="seconds since 1970; null: at once", examples=[None])
    closes_at: int | None = Field(description="seconds since 1970; null: never", examples=[1_798_761_600])
    delivery_grace_s: int = Field(examples=[3600])
    state: Literal["scheduled", "open", "delivering", "closed", "cancelled"] = Field(examples=["open"])
    creator: str = Field(examples=[ADDRESS])
    registrars: list[str] = Field(description="who may cast; empty: every gateway", examples=[[]])
    voter_key: Literal["shared", "random", "none", "elsewhere"] = Field(
        description="the key of voters' nullifiers: `random`: this gateway alone has it; `none`: none was named; "
        "`elsewhere`: this gateway has not got it, or not any more, and cannot cast",
        examples=["shared"],
    )


class ElectionChanged(Answer):
    """What became of a request to create, close or cancel; with the election once it is confirmed."""

    status: Literal["confirmed", "pending"] = Field(examples=["confirmed"])
    election_id: ElectionIdOut
    level: Level | None = None
    warning: Warning_ | None = None
    transaction_hash: OptionalHash = None
    block_number: OptionalHeight = None
    block_hash: OptionalBlockHash = None
    state: str | None = Field(None, examples=["open"])


class ElectionPage(Answer):
    """Elections in the order of creation."""

    elections: list[Election]
    total: int = Field(examples=[1])
    next_cursor: str | None = Field(examples=[None])


class Place(Answer):
    """Where a ballot is."""

    record_id: OptionalHash = None
    transaction_hash: OptionalHash = None
    block_number: OptionalHeight = None
    block_hash: OptionalBlockHash = None
    ballot_index: Index = None


class Vote(Place):
    """What became of a vote."""

    status: Literal["confirmed", "pending"] = Field(examples=["confirmed"])
    transaction_id: str = Field(examples=["7d0c4b1e-6d0f-4a36-9a53-0b6f9b1f2f11"])
    election_id: ElectionIdOut
    validator: str | None = Field(description="the one that took it first", examples=["validator-1"])
    level: Level
    warning: Warning_ | None = None


class VoteOutcome(Place):
    """What became of one vote of a batch. `not_taken`: nothing is kept of it, send it again."""

    index: int = Field(description="its place in the request", examples=[0])
    status: Literal["confirmed", "pending", "rejected", "not_taken"] = Field(examples=["confirmed"])
    transaction_id: str | None = Field(None, examples=["7d0c4b1e-6d0f-4a36-9a53-0b6f9b1f2f11"])
    election_id: ElectionIdOut
    validator: str | None = Field(None, examples=["validator-1"])
    code: str | None = Field(None, description="why it does not count, for programs", examples=[None])
    reason: str | None = Field(None, description="and for people", examples=[None])
    standing: Place | None = None


class VoteSummary(Answer):
    """How many of a batch ended how."""

    total: int = Field(examples=[1])
    confirmed: int = Field(examples=[1])
    pending: int = Field(examples=[0])
    rejected: int = Field(examples=[0])
    not_taken: int = Field(examples=[0])


class VoteBatch(Answer):
    """Outcomes in the order of the request."""

    results: list[VoteOutcome]
    summary: VoteSummary
    level: Level
    warning: Warning_ | None = None


class VoteStatus(Place):
    """What is known of a ballot, or of a transaction when it was asked for by its hash."""

    status: Literal["confirmed", "pending", "rejected", "unknown"] = Field(examples=["confirmed"])
    transaction_id: str = Field(examples=["7d0c4b1e-6d0f-4a36-9a53-0b6f9b1f2f11"])
    election_id: ElectionIdOut
    reason: str | None = None
    source: Source = Field(examples=["poa"])
    confirmations: int = Field(0, description="blocks from its own on", examples=[3])
    ballots: int | None = Field(None, description="of this election, in the transaction asked for by its hash")


class OptionCount(Answer):
    """One option's count; the percentage is of the open ballots."""

    option: int = Field(examples=[0])
    name: str = Field(examples=["Ada"])
    count: int = Field(examples=[3])
    percentage: float = Field(examples=[75.0])


class Results(Answer):
    """A tally, proven at a block; what still waits is in `pending` and in no count."""

    election_id: ElectionIdOut
    title: str = Field(examples=["Board 2026"])
    state: str = Field(examples=["open"])
    results: list[OptionCount]
    open_count: int = Field(examples=[4])
    sealed_count: int = Field(examples=[0])
    sealed: bool = Field(description="only sealed ballots are taken: the tally is sealed in them", examples=[False])
    total: int = Field(examples=[4])
    pending: int = Field(description="accepted here, not final", examples=[0])
    preliminary: bool = Field(examples=[True])
    as_of_block: Height
    block_number: Height
    block_hash: BlockHash
    source: Source = Field(examples=["poa"])
    stale: bool = Field(description="no validator answers: this is the last tally that was proven", examples=[False])
    verified: bool = Field(description="certificate and proofs were checked by this gateway", examples=[True])


class ChainCheck(Answer):
    """A check of an election's chain: running, complete, or failed where nobody could be asked."""

    job_id: Uuid
    election_id: ElectionIdOut
    status: Literal["running", "complete", "failed"] = Field(examples=["complete"])
    valid: bool | None = Field(examples=[True])
    checks: dict[str, bool] = Field(
        examples=[
            {
                "headers_linked": True,
                "certificates": True,
                "roots": True,
                "same_chain": True,
                "tally": True,
                "log_root": True,
            }
        ]
    )
    error: str | None = Field(examples=[None])
    blocks_checked: int = Field(examples=[1207])
    blocks_total: int = Field(examples=[1207])
    progress: float = Field(ge=0, le=1, examples=[1.0])
    progress_url: str = Field(examples=["/api/votes/verify-blockchain/0f8e7d6c-5b4a-4f3e-8d2c-1b0a9f8e7d6c"])
    ballots_counted: int = Field(examples=[4])
    results: list[int] = Field(examples=[[3, 1]])
    sealed_count: int = Field(examples=[0])
    block_hash: OptionalBlockHash
    validators: list[str] = Field(description="whose blocks were checked", examples=[["validator-1", "validator-2"]])
    distrusted: dict[str, str] = Field(description="who served what does not check", examples=[{}])
    source: Source = Field(examples=["poa"])
    started_at: Time


class ValidatorHealth(Answer):
    """One validator as the last probes and calls found it."""

    node_id: str = Field(examples=["validator-1"])
    rpc_url: str = Field(examples=["http://127.0.0.1:8001"])
    p2p_url: str = Field(examples=["127.0.0.1:30303"])
    status: Literal["healthy", "degraded", "unreachable"] = Field(examples=["healthy"])
    height: OptionalHeight
    lag: int | None = Field(description="blocks behind the highest", examples=[0])
    latency_ms: float | None = Field(examples=[1.7])
    last_error: str | None = Field(examples=[None])
    last_seen_at: OptionalTime
    address: str | None = Field(examples=[ADDRESS])


class HealthSummary(Answer):
    """How many of them are healthy."""

    healthy: int = Field(examples=[1])
    total: int = Field(examples=[1])
    health_percentage: float = Field(examples=[100.0])


class ValidatorsHealth(Answer):
    """All validators that the gateway talks to."""

    timestamp: Time
    validators: list[ValidatorHealth]
    summary: HealthSummary


class ValidatorsRefreshed(Answer):
    """All validators, probed just now."""

    message: str = Field(examples=["Validator status refreshed"])
    validators: list[ValidatorHealth]
    timestamp: Time


class AnchorReceived(Answer):
    """That an anchor is kept."""

    anchor_id: Uuid
    batch_id: BatchId
    merkle_root: MerkleRoot
    status: AnchorStatus = Field(examples=["pending"])
    job_id: Uuid
    message: str = Field(examples=["Anchor request received. Processing in background."])


class Anchor(Answer):
    """Everything known of an anchor. Times that only a lost journal knew are those of the block."""

    anchor_id: Uuid
    id: Uuid
    batch_id: BatchId
    merkle_root: MerkleRoot
    product_count: int = Field(examples=[250])
    status: AnchorStatus = Field(examples=["completed"])
    transaction_id: OptionalHash
    block_number: OptionalHeight
    gas_used: int | None = Field(examples=[212_345])
    gas_price_gwei: float | None = Field(examples=[0.0])
    network: str = Field(examples=["psephos-7770"])
    error: str | None = Field(examples=[None])
    retry_count: int | None = Field(description="null once the journal is lost", examples=[0])
    created_at: OptionalTime
    updated_at: OptionalTime
    anchored_at: OptionalTime
    job_id: Uuid
    algorithm: str = Field(examples=["sha256-sorted-pairs"])


class AnchorRetried(Answer):
    """That a failed anchor is tried again."""

    message: str = Field(examples=["Retry started. Processing in background."])
    anchor_id: Uuid
    job_id: Uuid


class AnchorPage(Answer):
    """Anchors, newest first; those that wait before those on the chain."""

    anchors: list[Anchor]
    next_cursor: str | None = Field(examples=[None])


class AnchorTimes(Answer):
    """From the request to the final block, of the last anchors that went through this gateway."""

    measured: int = Field(examples=[250])
    median: float | None = Field(examples=[0.21])
    p95: float | None = Field(examples=[0.34])


class AnchorStats(Answer):
    """Counts and times. `completed` is what the chain holds, from every gateway."""

    pending: int = Field(examples=[0])
    processing: int = Field(examples=[1])
    completed: int | None = Field(examples=[250])
    failed: int = Field(examples=[0])
    total: int | None = Field(examples=[251])
    seconds_to_final: AnchorTimes
    completed_per_minute: float = Field(examples=[12.5])
    stale: bool = Field(description="no validator answers: `completed` is the last that was proven", examples=[False])
    timestamp: Time


class AnchorVerification(Anchor):
    """An anchor checked anew: certificate of its block, and its place in the log, proven in that block's state."""

    valid: bool = Field(examples=[True])
    reason: str | None = Field(examples=[None])
    checks: dict[str, bool | None] = Field(
        description="null: there was nothing to compare with",
        examples=[{"merkle_root": True, "certificate": True, "proof": True}],
    )
    block_hash: OptionalBlockHash
    log_index: Index
    log_size: int | None = Field(examples=[42])


class Seals(Answer):
    """Whose certificate makes a block final."""

    round: int = Field(examples=[0])
    validators: list[str] = Field(description="who sealed it", examples=[[ADDRESS]])
    quorum: int = Field(examples=[2])


class TransactionVerification(Answer):
    """Whether a transaction is in a final block, by whose certificate."""

    valid: bool = Field(examples=[True])
    final: bool = Field(examples=[True])
    reason: str | None = Field(examples=[None])
    transaction_id: Hash
    succeeded: bool | None = Field(description="what its receipt says", examples=[True])
    block_number: OptionalHeight
    block_hash: OptionalBlockHash
    transaction_index: int | None = Field(examples=[0])
    timestamp: OptionalTime
    confirmations: int = Field(examples=[3])
    certificate: Seals | None


class Health(Answer):
    """The process answers."""

    status: str = Field(examples=["ok"])
    name: str = Field(examples=["gateway"])
    height: Height


class Ready(Answer):
    """Whether records are taken, and at which level."""

    ready: bool = Field(examples=[True])
    level: Level
    meaning: str = Field(examples=["all validators"])
    validators: int = Field(description="that answer", examples=[3])
    height: Height
    block_hash: BlockHash
    journal_depth: int = Field(description="records that are not final yet", examples=[0])


class ProblemDocument(Answer):
    """RFC 9457: what went wrong. `code` is stable; `request_id` is in the gateway's log and in X-Request-Id."""

    type: str = Field(examples=["urn:psephos:problem:not-valid"])
    title: str = Field(examples=["Request not valid"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["The body is not valid: election_id: Field required."])
    code: str = Field(examples=["not-valid"])
    request_id: str = Field(examples=["0f3b2c1d4e5f60718293a4b5c6d7e8f9"])


def example_of(model: type[BaseModel], **instead: Any) -> dict[str, Any]:
    """A literal example of an answer, from those of its members."""
    shown: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if name in instead:
            shown[name] = instead[name]
        elif field.examples:
            shown[name] = field.examples[0]
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            shown[name] = example_of(field.annotation)
        elif (inner := _model_in(field.annotation)) is not None and field.is_required():
            is_list = getattr(field.annotation, "__origin__", None) is list
            shown[name] = [example_of(inner)] if is_list else example_of(inner)
        elif not field.is_required():
            continue
        else:
            raise TypeError(f"{model.__name__}.{name} has no example")
    return shown


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for part in getattr(annotation, "__args__", ()):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None
