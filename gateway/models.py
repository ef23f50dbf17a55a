"""The bodies that callers send, as pydantic models: they validate, and later generate the API's documentation."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from node.chain.contracts.ballots import CONTENT_BYTES_MAX

VOTES_MAX = 1_000
PRODUCTS_MAX = (1 << 64) - 1
ALGORITHM_CHARS_MAX = 64
ELECTION_ID_MAX = (1 << 256) - 1
ELECTION_ID_EXPECTED = "a whole number from 0 to 2^256 - 1, as decimal digits in a string where it is above 2^64 - 1"
_JSON_SAFE_MAX = (1 << 53) - 1
_ZEROS = bytes(16)
_DECIMAL = re.compile(r"\d{1,78}", re.ASCII)


def parse_election_id(value: Any) -> int:
    """An election id: a whole number, or its decimal digits in a string. Raises ValueError."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= ELECTION_ID_MAX:
        raise ValueError(f"expected {ELECTION_ID_EXPECTED}")
    return value


def show_election_id(id_: int) -> int | str:
    """A number where JSON's readers agree on it, a string of digits above."""
    return id_ if id_ <= _JSON_SAFE_MAX else str(id_)


def _text_id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError("expected a string, or a whole number of 64 bits")
    return value


def _root(value: Any) -> Any:
    return value.removeprefix("0x") if isinstance(value, str) else value


_ElectionIdIn = Annotated[int, Field(ge=0, lt=1 << 64)] | Annotated[str, Field(pattern="^[0-9]{1,78}$")]
_TextIdIn = str | int  # its bounds are in bytes of UTF-8, which JSON Schema cannot say: each description does
_RootIn = Annotated[str, Field(pattern="^(0x)?[0-9a-fA-F]{64}$")]

ElectionId = Annotated[int, BeforeValidator(parse_election_id, json_schema_input_type=_ElectionIdIn)]
TextId = Annotated[str, BeforeValidator(_text_id, json_schema_input_type=_TextIdIn)]


def parse_batch_id(text: str) -> bytes:
    """The batch id that a UUID's text stands for: the 16 bytes of the UUID and 16 zeros. Raises ValueError."""
    digits = text.replace("-", "")
    if len(digits) != 32:  # almost all are written without these
        digits = text.replace("urn:", "").replace("uuid:", "").strip("{}").replace("-", "")
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        raise ValueError("expected a UUID") from None
    if (len(digits), len(found)) != (32, 16):  # spaces between digits are passed over
        raise ValueError("expected a UUID")
    return found + _ZEROS


def show_batch_id(batch_id: bytes) -> str:
    """The UUID that stands for a batch id, as text."""
    return uuid_text(batch_id[:16].hex())


def uuid_text(digits: str) -> str:
    """The text of the UUID with these 32 hex digits."""
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _batch_id(text: str) -> str:
    parse_batch_id(text)
    return text


BatchId = Annotated[str, AfterValidator(_batch_id), Field(description="a UUID", json_schema_extra={"format": "uuid"})]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


def _only(given: str, types: list[str], other: str) -> dict[str, Any]:
    return {"required": [given], "properties": {given: {"type": types}, other: {"type": "null"}}}


_ONE_BALLOT: list[Any] = [
    _only("choice", ["integer", "string"], "encrypted_vote"),
    _only("encrypted_vote", ["string"], "choice"),
]


class VoteBody(_Body):
    """One vote: either `choice`, for an open ballot, or `encrypted_vote`, for a sealed one."""

    model_config = ConfigDict(extra="ignore", strict=True, json_schema_extra={"oneOf": _ONE_BALLOT})

    voter_id: Annotated[TextId, Field(description="1 to 256 bytes in UTF-8; never leaves the gateway")]
    election_id: ElectionId
    choice: Annotated[
        int | str | None,
        Field(
            description="the option's number, from 0, or its name (digits in a string: a name, where any is called so)"
        ),
    ] = None
    encrypted_vote: Annotated[
        str | None, Field(min_length=1, max_length=CONTENT_BYTES_MAX, description="any text of at most 65,536 bytes")
    ] = None
    transaction_id: Annotated[
        TextId | None, Field(description="the caller's own id, 1 to 256 bytes in UTF-8; made if missing")
    ] = None

    @model_validator(mode="after")
    def _one_ballot(self) -> "VoteBody":
        if (self.choice is None) == (self.encrypted_vote is None):
            raise ValueError("give either 'choice' (an open ballot) or 'encrypted_vote' (a sealed one)")
        if isinstance(self.choice, bool):
            raise ValueError("'choice' is an option's number or name, not true or false")
        if self.encrypted_vote is not None:
            size = len(self.encrypted_vote.encode(errors="replace"))
            if not 0 < size <= CONTENT_BYTES_MAX:
                raise ValueError(f"'encrypted_vote' has {size} bytes in UTF-8, expected 1 to {CONTENT_BYTES_MAX}")
        return self


class VoteBatchBody(_Body):
    """Up to 1,000 votes; each is accepted or refused on its own."""

    votes: Annotated[list[VoteBody], Field(min_length=1, max_length=VOTES_MAX)]


class VerifyChainBody(_Body):
    """Which election's chain to check."""

    election_id: ElectionId


class ElectionBody(_Body):
    """A new election. Times are seconds since 1970; 0 or nothing means at once, or never."""

    election_id: ElectionId
    title: Annotated[str, Field(min_length=1, max_length=1024)]
    options: Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=2, max_length=64)]
    kinds: Literal["open", "sealed", "both"] = "both"
    opens_at: Annotated[int | None, Field(ge=0, lt=1 << 63)] = None
    closes_at: Annotated[int | None, Field(ge=0, lt=1 << 63)] = None
    delivery_grace_s: Annotated[int, Field(ge=0, lt=1 << 32)] = 3600
    registrars: Annotated[list[Annotated[str, Field(pattern="^0x[0-9a-fA-F]{40}$")]], Field(max_length=64)] = []
    voter_key: Annotated[
        Literal["shared", "random"],
        Field(
            description="what voters' nullifiers come from: the secret that gateways share, or a random key that this "
            "gateway alone has and erases once the tally is final"
        ),
    ] = "shared"

    @model_validator(mode="after")
    def _addresses(self) -> "ElectionBody":
        for address in self.registrars:
            if not re.fullmatch(r"0x[0-9a-fA-F]{40}", address):
                raise ValueError(f"registrar {address!r} is no 0x-address of 20 bytes")
        return self


class AnchorBody(_Body):
    """A Merkle root to keep."""

    batch_id: BatchId
    merkle_root: Annotated[
        str, Field(pattern=r"^[0-9a-fA-F]{64}$"), BeforeValidator(_root, json_schema_input_type=_RootIn)
    ]
    product_count: Annotated[int, Field(ge=0, lt=PRODUCTS_MAX + 1)]
    algorithm: Annotated[
        str | None, Field(max_length=ALGORITHM_CHARS_MAX, pattern=r"^[\x00-\x7f]*$", description="ASCII")
    ] = None
    callback_url: Annotated[
        str | None, Field(max_length=2048, description="told of the end by a signed POST; its host must be allowed")
    ] = None
