"""Consensus messages as msgpack bytes and back: strict about types, lengths and counts, and never hashed or signed."""

import msgpack

from node.chain.block import Block, Decode, pack_block, unpack_block
from node.chain.signing import SIGNATURE_BYTES
from node.chain.transaction import decode_transaction
from node.consensus.messages import (
    HEIGHT_MAX,
    NOTHING_ATTACHED,
    ROUND_MAX,
    Attachments,
    InvalidMessage,
    Kind,
    Message,
    SignedStatement,
    Statement,
)

STATEMENTS_MAX = 1024  # in one attachment; a justification needs at most one of each validator
_KINDS = {int(kind): kind for kind in Kind}


def encode_message(message: Message) -> bytes:
    """The bytes of the payload of a CONSENSUS frame: [statement, block or nil, [ROUND-CHANGEs], [PREPAREs]]."""
    attached = message.attachments
    packed = [
        pack_signed(message.signed),
        None if attached.block is None else pack_block(attached.block),
        [pack_signed(signed) for signed in attached.round_changes],
        [pack_signed(signed) for signed in attached.prepares],
    ]
    return bytes(msgpack.packb(packed, use_bin_type=True))


def decode_message(data: bytes, decode: Decode = decode_transaction) -> Message:
    """The message of these bytes, its form checked and no signature; `decode` is as in `unpack_block`.

    Raises InvalidMessage, InvalidBlock or InvalidTransaction (all PeerError).
    """
    packed = unpack_bytes(data)
    if not isinstance(packed, list) or len(packed) != 4:
        raise InvalidMessage("a consensus message is [statement, block, round changes, prepares]")
    signed = unpack_signed(packed[0])
    block: Block | None = None if packed[1] is None else unpack_block(packed[1], decode)
    round_changes = _statements(packed[2], Kind.ROUND_CHANGE)
    prepares = _statements(packed[3], Kind.PREPARE)
    kind = signed.statement.kind
    if block is None and not round_changes and not prepares:
        return Message(signed, NOTHING_ATTACHED)
    if block is None:
        raise InvalidMessage(f"a {kind.name} has a justification and no block")
    if kind in (Kind.PREPARE, Kind.COMMIT):
        raise InvalidMessage(f"a {kind.name} has nothing attached")
    if kind is Kind.ROUND_CHANGE and round_changes:
        raise InvalidMessage("a ROUND_CHANGE has no other ROUND_CHANGEs attached")
    if block.hash != signed.statement.block_hash:
        raise InvalidMessage(f"the block attached to a {kind.name} is not the one that it names")
    return Message(signed, Attachments(block, round_changes, prepares))


def unpack_bytes(data: bytes) -> object:
    """msgpack of lists, byte strings, integers and nil. Raises InvalidMessage on anything else, or bytes left over."""
    try:
        return msgpack.unpackb(
            data, raw=False, strict_map_key=True, use_list=True, max_map_len=0, max_ext_len=0, max_str_len=0
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise InvalidMessage(f"not the msgpack of a consensus message: {error}") from None


def pack_signed(signed: SignedStatement) -> list[object]:
    """[kind, height, round, block hash or empty, prepared round + 1 or 0, signature]."""
    return [*pack_statement(signed.statement), signed.signature]


def unpack_signed(packed: object) -> SignedStatement:
    """The signed statement of what `pack_signed` made. Raises InvalidMessage."""
    if not isinstance(packed, list) or len(packed) != 6:
        raise InvalidMessage("a signed statement is [kind, height, round, block hash, prepared round + 1, signature]")
    signature = packed[5]
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise InvalidMessage(f"a statement's signature has {SIGNATURE_BYTES} bytes")
    return SignedStatement(unpack_statement(packed[:5]), signature)


def pack_statement(statement: Statement) -> list[object]:
    """[kind, height, round, block hash or empty, prepared round + 1 or 0]."""
    prepared = 0 if statement.prepared_round is None else statement.prepared_round + 1
    return [int(statement.kind), statement.height, statement.round, statement.block_hash or b"", prepared]


def unpack_statement(packed: list[object]) -> Statement:
    """The statement of what `pack_statement` made. Raises InvalidMessage."""
    kind_number, height, round_, block_hash, prepared = packed
    if type(kind_number) is not int or kind_number not in _KINDS:
        raise InvalidMessage(f"statement kind {kind_number!r}, expected 1 to 4")
    kind = _KINDS[kind_number]
    if type(height) is not int or not 1 <= height <= HEIGHT_MAX:
        raise InvalidMessage(f"statement height {height!r}, expected 1 to {HEIGHT_MAX}")
    if type(round_) is not int or not 0 <= round_ <= ROUND_MAX:
        raise InvalidMessage(f"statement round {round_!r}, expected 0 to {ROUND_MAX}")
    if not isinstance(block_hash, bytes) or type(prepared) is not int:
        raise InvalidMessage("a statement's block hash is bytes and its prepared round an integer")
    if kind is not Kind.ROUND_CHANGE:
        if len(block_hash) != 32 or prepared != 0:
            raise InvalidMessage(f"a {kind.name} names a block hash of 32 bytes and no prepared round")
        return Statement(kind, height, round_, block_hash)
    if round_ == 0:
        raise InvalidMessage("no ROUND_CHANGE leads to round 0")
    if prepared == 0 and block_hash == b"":
        return Statement(kind, height, round_, None)
    if not 1 <= prepared <= round_ or len(block_hash) != 32:
        raise InvalidMessage("a ROUND_CHANGE names a prepared round below its own with a block hash, or neither")
    return Statement(kind, height, round_, block_hash, prepared - 1)


def _statements(packed: object, kind: Kind) -> tuple[SignedStatement, ...]:
    if not isinstance(packed, list) or len(packed) > STATEMENTS_MAX:
        raise InvalidMessage(f"a justification is a list of at most {STATEMENTS_MAX} statements")
    statements = tuple(unpack_signed(item) for item in packed)
    if any(signed.statement.kind is not kind for signed in statements):
        raise InvalidMessage(f"a justification holds other statements than {kind.name}s")
    return statements
