"""A product's receipt, pure: its path to the root of its batch, and the receipt of the anchor that holds the root."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.receipt import DOCUMENT_BYTES_MAX, InvalidReceipt, LogHead, Receipt, parse, receipt_document
from gateway.receipt_check import Step, check_head, check_receipt
from gateway.records import Anchor
from gateway.strictjson import Fields, Malformed, loads
from merkle import trees
from merkle.errors import InvalidProof
from merkle.leaves import leaf_of
from node.chain.domain import Domain
from node.consensus.override import Override

PROOF_FORMAT: Final = "psephos-tree-proof"
PRODUCT_FORMAT: Final = "psephos-product-receipt"
VERSION: Final = 1
_UNSPECIFIED = "unspecified"
_INDEX_MAX = (1 << 53) - 1


@dataclass(frozen=True, slots=True)
class TreeProof:
    """A leaf's way to the root of a batch of `size` leaves. `leaf` is its text, where the maker gave it."""

    algorithm: str
    leaf: str | None
    leaf_hash: bytes
    index: int
    size: int
    proof: tuple[bytes, ...]
    root: bytes


@dataclass(frozen=True, slots=True)
class ProductReceipt:
    """A tree proof and the receipt of the anchor with its root."""

    proof: TreeProof
    anchor: Receipt


Checkable = Receipt | LogHead | TreeProof | ProductReceipt


def proof_document(proof: TreeProof) -> dict[str, Any]:
    """The JSON document of a tree proof; `POST /v1/verify/proof` takes it as it is."""
    return {
        "format": PROOF_FORMAT,
        "version": VERSION,
        "algorithm": proof.algorithm,
        "leaf": proof.leaf,
        "leaf_hash": proof.leaf_hash.hex(),
        "index": proof.index,
        "tree_size": proof.size,
        "proof": [part.hex() for part in proof.proof],
        "root": proof.root.hex(),
    }


def product_document(product: ProductReceipt) -> dict[str, Any]:
    """The JSON document of a product's receipt."""
    return {
        "format": PRODUCT_FORMAT,
        "version": VERSION,
        "proof": proof_document(product.proof),
        "anchor": receipt_document(product.anchor),
    }


def parse_any(document: object) -> Checkable:
    """Any of the documents that can be verified; a JSON text may be given as bytes. Raises InvalidReceipt."""
    try:
        if isinstance(document, (bytes, bytearray)):
            document = loads(bytes(document), bytes_max=DOCUMENT_BYTES_MAX)
        format_ = document.get("format") if isinstance(document, dict) else None
        if format_ == PROOF_FORMAT:
            return _proof(Fields(document, "the document"))
        if format_ != PRODUCT_FORMAT:
            return parse(document)
        assert isinstance(document, dict)
        rest = dict(document)
        anchor = parse(rest.pop("anchor", None))
        fields = Fields(rest, "the document")
        _version(fields, PRODUCT_FORMAT)
        proof = _proof(fields.object("proof"))
        fields.end()
    except Malformed as error:
        raise InvalidReceipt("reading the file", str(error)) from None
    if not isinstance(anchor, Receipt) or not isinstance(anchor.record, Anchor):
        raise InvalidReceipt("reading the file", "'anchor' is not the receipt of an anchor")
    return ProductReceipt(proof, anchor)


def check_any(
    found: Checkable, trusted: Domain | None, *, checkpoint: bytes | None = None, overrides: Sequence[Override] = ()
) -> Iterator[Step]:
    """Yield each step of the check that holds. `trusted` may be None for a tree proof alone, which knows no network.

    Raises InvalidReceipt.
    """
    if isinstance(found, TreeProof):
        yield check_proof(found)
        return
    if trusted is None:
        raise InvalidReceipt("the network", "it has to be named, by its genesis")
    if isinstance(found, ProductReceipt):
        yield check_proof(found.proof)
        yield from check_receipt(found.anchor, trusted, checkpoint=checkpoint, overrides=overrides)
        yield check_match(found.proof, found.anchor)
    elif isinstance(found, Receipt):
        yield from check_receipt(found, trusted, checkpoint=checkpoint, overrides=overrides)
    else:
        yield from check_head(found, trusted, checkpoint=checkpoint, overrides=overrides)


def check_proof(proof: TreeProof) -> Step:
    """The leaf is in the batch with this root. Raises InvalidReceipt."""
    how = _algorithm(proof.algorithm)
    try:
        if proof.leaf is not None and how.leaf_hash(leaf_of(proof.leaf)) != proof.leaf_hash:
            raise InvalidProof("the leaf's text does not have the leaf's hash")
        steps = steps_for(how, proof.index, proof.size, proof.proof)
        trees.verify(how, proof.leaf_hash, steps, proof.root)
    except ValueError as error:
        raise InvalidReceipt("the place in the batch", str(error)) from None
    words = f"The product is leaf {proof.index} of a batch of {proof.size}."
    if how.weakness is not None:
        words += f" Beware: the batch was built with {how.name}, which is unsafe: {how.weakness}."
    return Step(words, (("leaf hash", proof.leaf_hash.hex()), ("batch root", proof.root.hex())))


def check_match(proof: TreeProof, anchor: Receipt) -> Step:
    """The anchor holds the root of this batch. Raises InvalidReceipt."""
    reason = mismatch(anchor.record, proof.root, proof.size, proof.algorithm)
    if reason is not None:
        raise InvalidReceipt("the batch and its anchor", reason)
    return Step("That anchor holds the root of the product's batch.", (("batch root", proof.root.hex()),))


def mismatch(anchor: object, root: bytes, size: int | None, algorithm: str | None) -> str | None:
    """Why an anchor is not that of a batch; None when it is. What is not known of the batch is not compared."""
    if not isinstance(anchor, Anchor):
        return "there is no anchor"
    if anchor.merkle_root != root:
        return f"the anchored root is {anchor.merkle_root.hex()}, not {root.hex()}"
    if size is not None and size != anchor.leaf_count:
        return f"the anchor is of {anchor.leaf_count} leaves, not of {size}"
    if algorithm is not None and anchor.algorithm not in (algorithm, _UNSPECIFIED):
        return f"the anchor's algorithm is {anchor.algorithm}, not {algorithm}"
    return None


def steps_for(how: trees.Algorithm, index: int, size: int, hashes: Sequence[bytes]) -> list[trees.ProofStep]:
    """The steps of a proof that index and size give the sides to. Raises InvalidProof."""
    if how.lone == "promoted":
        return trees.steps_of(index, size, hashes)
    if not 0 <= index < size or len(hashes) != (size - 1).bit_length():
        raise InvalidProof(f"a proof of leaf {index} of {size} has another form")
    return [trees.ProofStep(part, "left" if index >> level & 1 else "right") for level, part in enumerate(hashes)]


def _version(fields: Fields, expected: str) -> None:
    if fields.text("format") != expected:
        raise Malformed(f"'format' is not '{expected}'")
    version = fields.integer("version", 0, _INDEX_MAX)
    if version != VERSION:
        raise Malformed(f"'version' is {version}; this program reads version {VERSION}")


def _proof(fields: Fields) -> TreeProof:
    _version(fields, PROOF_FORMAT)
    found = TreeProof(
        fields.text("algorithm"),
        fields.optional_text("leaf"),
        fields.plain_hex("leaf_hash", 32),
        fields.integer("index", 0, _INDEX_MAX),
        fields.integer("tree_size", 1, _INDEX_MAX),
        tuple(fields.plain_hexes("proof", 0, trees.STEPS_MAX, 32)),
        fields.plain_hex("root", 32),
    )
    fields.end()
    return found


def _algorithm(name: str) -> trees.Algorithm:
    try:
        return trees.algorithm(name)
    except ValueError as error:
        raise InvalidReceipt("the place in the batch", str(error)) from None
