"""Routes for trees of products: build a small one, check a proof against a root, an anchor or an anchor's receipt."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.api.common import GATEWAY, answer, read_body
from gateway.models import BatchId, parse_batch_id, show_batch_id
from gateway.problems import Problem
from gateway.product import mismatch, steps_for
from gateway.receipt import InvalidReceipt, Receipt, parse
from gateway.receipt_check import verify_receipt
from gateway.service import Gateway
from merkle import trees
from merkle.errors import InvalidProof
from merkle.leaves import leaf_of

LEAVES_MAX = 10_000
PROOFS_MAX = 1_000  # batches above it get their root; `psephos merkle build` writes the proofs of large ones


def _hash(value: Any) -> Any:
    return value.removeprefix("0x").lower() if isinstance(value, str) else value


Hash = Annotated[str, BeforeValidator(_hash), Field(pattern=r"^[0-9a-f]{64}$", description="32 bytes in hex")]
AlgorithmName = Literal["rfc6962-sha256", "sha256-sorted-pairs", "sha256-hex-pipe"]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class BuildBody(_Body):
    """Leaves of a batch, in their order: texts, or any JSON values (their canonical JSON is the leaf)."""

    leaves: Annotated[list[Any] | None, Field(min_length=1, max_length=LEAVES_MAX)] = None
    leaf_hashes: Annotated[list[Hash] | None, Field(min_length=1, max_length=LEAVES_MAX)] = None
    algorithm: AlgorithmName = "rfc6962-sha256"
    expected_root: Annotated[Hash | None, Field(description="an old root to check; needed by unsafe algorithms")] = None
    proofs: Annotated[bool, Field(description=f"with up to {PROOFS_MAX} leaves")] = True

    @model_validator(mode="after")
    def _checks(self) -> "BuildBody":
        if (self.leaves is None) == (self.leaf_hashes is None):
            raise ValueError("give either 'leaves' or 'leaf_hashes'")
        if not trees.algorithm(self.algorithm).safe and self.expected_root is None:
            raise ValueError(f"{self.algorithm} is unsafe and only checks old roots: give 'expected_root'")
        return self


class StepBody(_Body):
    """One step of a proof that says on which side the sibling stands."""

    hash: Hash
    position: Literal["left", "right"]


class ProofBody(_Body):
    """A leaf, its way to the root, and the root or what anchors it."""

    leaf: Any = None
    product_id: Annotated[str | None, Field(description="the same as a leaf of this text")] = None
    leaf_hash: Hash | None = None
    index: Annotated[int | None, Field(ge=0, lt=1 << 53)] = None
    tree_size: Annotated[int | None, Field(ge=1, lt=1 << 53)] = None
    proof: Annotated[list[StepBody] | list[Hash], Field(max_length=trees.STEPS_MAX)]
    root: Hash | None = None
    batch_id: BatchId | None = None
    anchor_receipt: dict[str, Any] | None = None
    algorithm: AlgorithmName = "rfc6962-sha256"

    @model_validator(mode="after")
    def _checks(self) -> "ProofBody":
        if self.leaf is None and self.product_id is None and self.leaf_hash is None:
            raise ValueError("give 'leaf', 'leaf_hash' or 'product_id'")
        if self.root is None and self.batch_id is None and self.anchor_receipt is None:
            raise ValueError("give 'root', 'batch_id' or 'anchor_receipt'")
        plain = any(isinstance(step, str) for step in self.proof)
        if (plain or not self.proof) and (self.index is None or self.tree_size is None):
            raise ValueError("a proof without positions needs 'index' and 'tree_size'")
        return self


def routes() -> list[web.RouteDef]:
    return [web.post("/v1/merkle/build", build), web.post("/v1/verify/proof", verify_proof)]


async def build(request: web.Request) -> web.Response:
    """Root and proofs of a small batch."""
    body = await read_body(request, BuildBody)
    how = trees.algorithm(body.algorithm)
    hashes = [bytes.fromhex(one) for one in body.leaf_hashes or ()] or [
        how.leaf_hash(_leaf(v)) for v in body.leaves or ()
    ]
    root = trees.root(how, hashes)
    shown: dict[str, Any] = {
        "merkle_root": root.hex(),
        "algorithm": how.name,
        "safe": how.safe,
        "warning": how.weakness,
        "product_count": len(hashes),
        "matches": None if body.expected_root is None else body.expected_root == root.hex(),
        "leaf_hashes": [one.hex() for one in hashes],
        "proofs": None,
    }
    if body.proofs and how.safe and len(hashes) <= PROOFS_MAX:
        shown["proofs"] = [_shown(trees.prove(how, hashes, index)) for index in range(len(hashes))]
    return answer(shown)


async def verify_proof(request: web.Request) -> web.Response:
    """Whether a leaf is in a tree: `valid`, and why not; 200 either way."""
    body = await read_body(request, ProofBody)
    gateway = request.app[GATEWAY]
    how = trees.algorithm(body.algorithm)
    shown: dict[str, Any] = {
        "valid": False,
        "reason": None,
        "algorithm": how.name,
        "safe": how.safe,
        "warning": how.weakness,
        "leaf_hash": None,
        "computed_root": None,
        "checked": [],
    }
    try:
        leaf_hash = _leaf_hash(body, how)
        shown["leaf_hash"] = leaf_hash.hex()
        root = trees.root_of_proof(how, leaf_hash, _steps(body, how))
        shown["computed_root"] = root.hex()
        if body.root is not None and body.root != root.hex():
            raise InvalidProof(f"the proof leads to the root {root.hex()}, not to {body.root}")
        shown["checked"].append("the proof leads from the leaf to the root")
        await _check_anchor(body, gateway, how, root, shown)
    except InvalidProof as error:
        return answer(shown | {"reason": str(error)})
    return answer(shown | {"valid": True})


async def _check_anchor(
    body: ProofBody, gateway: Gateway, how: trees.Algorithm, root: bytes, shown: dict[str, Any]
) -> None:
    if body.anchor_receipt is not None:
        try:
            receipt = parse(body.anchor_receipt)
            if not isinstance(receipt, Receipt):
                raise InvalidReceipt("the anchor's receipt", "it is that of a log, not of an anchor")
            verify_receipt(receipt, gateway.domain, overrides=gateway.follower.sets.overrides)
        except InvalidReceipt as error:
            raise InvalidProof(f"the anchor's receipt: {error}") from None
        reason = mismatch(receipt.record, root, body.tree_size, how.name)
        if reason is not None:
            raise InvalidProof(reason)
        shown["checked"].append(f"the anchor's receipt, final in block {receipt.head.header.number}")
        shown["block_number"] = receipt.head.header.number
    if body.batch_id is not None:
        batch_id = parse_batch_id(body.batch_id)
        standing = await gateway.chain.anchor(batch_id, sure=True)
        if standing is None:
            raise InvalidProof(f"there is no anchor of batch {show_batch_id(batch_id)}")
        reason = mismatch(standing.record, root, body.tree_size, how.name)
        if reason is not None:
            raise InvalidProof(reason)
        shown["checked"].append(
            f"the anchor of batch {show_batch_id(batch_id)}, final in block {standing.place.block_number}"
        )
        shown["block_number"] = standing.place.block_number
        shown["transaction_id"] = "0x" + standing.place.transaction_hash.hex()


def _leaf_hash(body: ProofBody, how: trees.Algorithm) -> bytes:
    """The leaf's hash; where a leaf and its hash are both given, they must agree. Raises InvalidProof."""
    found = {how.leaf_hash(_leaf(value)) for value in (body.leaf, body.product_id) if value is not None}
    if body.leaf_hash is not None:
        found.add(bytes.fromhex(body.leaf_hash))
    if len(found) != 1:
        raise InvalidProof("the leaf does not have the leaf hash that is given")
    return found.pop()


def _steps(body: ProofBody, how: trees.Algorithm) -> Sequence[trees.ProofStep]:
    """The steps of either form. Where both forms are there, they must agree. Raises InvalidProof."""
    hashes = [bytes.fromhex(step if isinstance(step, str) else step.hash) for step in body.proof]
    given = [
        trees.ProofStep(part, step.position)
        for part, step in zip(hashes, body.proof, strict=True)
        if isinstance(step, StepBody)
    ]
    if body.index is None or body.tree_size is None:
        return given
    steps = steps_for(how, body.index, body.tree_size, hashes)
    if given and given != steps and how.name != trees.SORTED_PAIRS:
        raise InvalidProof("the positions are not those of this index in a tree of this size")
    return steps


def _leaf(value: Any) -> bytes:
    try:
        return leaf_of(value)
    except ValueError as error:
        raise Problem(422, "not-valid", f"{error}.") from None


def _shown(steps: Sequence[trees.ProofStep]) -> list[dict[str, str]]:
    return [{"hash": step.hash.hex(), "position": step.position} for step in steps]
