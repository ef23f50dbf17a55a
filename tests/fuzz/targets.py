"""What strangers' bytes meet first, one target each: any bytes give a value, or the error that blames their sender.

A target takes bytes and raises only where our code is wrong: an error of another type, or a value that does not encode
to what it was read from. Its seeds are honest bytes from which a fuzzer starts. The JSON-RPC is in `rpc_targets`.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import orjson
import rlp as independent_rlp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bootnode.table import Table
from gateway.strictjson import Malformed, loads
from merkle import rlp
from merkle.keccak import keccak256
from merkle.patricia import ordered_root
from node import payloads
from node.chain.block import Block, Header, decode_header
from node.chain.domain import Domain
from node.chain.errors import InvalidBlock, InvalidTransaction, PeerError
from node.chain.signing import SigningKey
from node.chain.transaction import decode_transaction, sign_transaction
from node.consensus.certificate import Certificate, pack_certificate
from node.consensus.codec import decode_message, encode_message
from node.consensus.guard import GuardCorrupt, create_records, replay
from node.consensus.messages import Attachments, InvalidMessage, Kind, Message, SignedStatement, Statement
from node.p2p.framing import FrameDecoder, MalformedFrame, encode_frame
from node.p2p.identity import InvalidIdentity, issue_leaf, read_leaf
from node.p2p.kinds import Kind as Frame
from node.p2p.kinds import payload_bytes_max
from node.p2p.records import parse_record, record_document, sign_record
from node.p2p.session import Hello, Session, SessionLimits, encode_hello

KEY = SigningKey(keccak256(b"fuzz"))
DOMAIN = Domain(7770, keccak256(b"genesis"))
CAPS = payload_bytes_max(1 << 20)
HELLO = Hello(1, 1, 7, "validator-1", "127.0.0.1:30303", "psephos/test")
NOW_S = 1_700_000_000


@dataclass(frozen=True)
class Target:
    """`check` reads any bytes, as often as one likes; `seeds` makes bytes that it accepts."""

    check: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


def _blocks() -> list[Block]:
    transactions = tuple(
        sign_transaction(KEY, chain_id=7770, nonce=n, to=bytes(20), gas_limit=21_000 + 5_000 * n, data=b"\x05" * n)
        for n in range(3)
    )
    root = ordered_root([transaction.raw for transaction in transactions])
    header = Header(
        parent_hash=keccak256(b"parent"), miner=KEY.address, state_root=bytes(32), transactions_root=root,
        receipts_root=bytes(32), logs_bloom=bytes(256), number=8, gas_limit=1 << 31, gas_used=63_000,
        timestamp=NOW_S, extra_data=bytes(32),
    )  # fmt: skip
    return [Block(header, transactions), Block(header)]


def _signed(kind: Kind, block_hash: bytes | None, prepared_round: int | None = None) -> SignedStatement:
    statement = Statement(kind, 8, 2, block_hash, prepared_round)
    return SignedStatement(statement, KEY.sign(statement.digest(DOMAIN)))


# Frames and handshake


def check_frames(data: bytes) -> None:
    """The same stream gives the same frames however it is cut, and each encodes to the bytes it came from."""

    def frames(pieces: Sequence[bytes]) -> tuple[list[tuple[Frame, bytes]], str]:
        decoder, found = FrameDecoder(), []
        try:
            for piece in pieces:
                decoder.feed(piece)
                while (frame := decoder.next_frame(CAPS)) is not None:
                    found.append(frame)
        except MalformedFrame as error:
            return found, str(error)
        return found, ""

    whole, error = frames([data])
    step = 1 + len(data) % 7
    assert frames([data[i : i + step] for i in range(0, len(data), step)]) == (whole, error)
    assert data.startswith(b"".join(encode_frame(*frame) for frame in whole))


def seed_frames() -> list[bytes]:
    hello = encode_frame(Frame.HELLO, encode_hello(HELLO))
    return [hello, hello + encode_frame(Frame.PING, bytes(8)) + encode_frame(Frame.STATUS, b"\x92\x01\x02")]


def check_handshake(data: bytes) -> None:
    """A session that any bytes reach opens or ends; what it made of a hello says the same when it is said again."""
    session = Session(HELLO, CAPS, SessionLimits(), now_ms=0)
    try:
        for start in range(0, len(data), 97):
            session.receive(data[start : start + 97], now_ms=start)
    except PeerError:
        pass
    if session.peer_hello is not None:
        again = Session(HELLO, CAPS, SessionLimits(), now_ms=0)
        again.receive(encode_frame(Frame.HELLO, encode_hello(session.peer_hello)), now_ms=0)
        assert again.peer_hello == session.peer_hello


def check_certificate_of_peer(data: bytes) -> None:
    """A TLS certificate (DER) names a node or is refused."""
    try:
        read_leaf(data, DOMAIN)
    except InvalidIdentity:
        return


def seed_certificates() -> list[bytes]:
    session_key = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    return [issue_leaf(KEY, session_key, DOMAIN, not_before_s=NOW_S, not_after_s=NOW_S + 3_600)]


# msgpack


def check_messages(data: bytes) -> None:
    """A consensus message encodes to bytes that decode to it."""
    try:
        message = decode_message(data)
    except (InvalidMessage, InvalidBlock, InvalidTransaction):
        return
    assert decode_message(encode_message(message)) == message
    for signed in (message.signed, *message.attachments.prepares, *message.attachments.round_changes):
        try:
            signed.signer(DOMAIN)
        except PeerError:
            continue


def seed_messages() -> list[bytes]:
    block = _blocks()[0]
    prepares = (_signed(Kind.PREPARE, block.hash),)
    change = _signed(Kind.ROUND_CHANGE, block.hash, 1)
    messages = [
        Message(_signed(Kind.PREPARE, block.hash)),
        Message(_signed(Kind.ROUND_CHANGE, None)),
        Message(_signed(Kind.PROPOSAL, block.hash), Attachments(block, (change,), prepares)),
        Message(change, Attachments(block, (), prepares)),
    ]
    return [encode_message(message) for message in messages]


_Codec = tuple[Callable[[bytes], Any], Callable[[Any], bytes]]
_PAYLOADS: tuple[_Codec, ...] = (
    (payloads.unpack_status, lambda value: payloads.pack_status(*value)),
    (payloads.unpack_hashes, payloads.pack_hashes),
    (payloads.unpack_transactions, payloads.pack_transactions),
    (payloads.unpack_get_blocks, lambda value: payloads.pack_get_blocks(*value)),
    (payloads.unpack_blocks, lambda value: _pack_blocks(value)),
)


def _pack_blocks(pairs: Sequence[tuple[Block, Certificate]]) -> bytes:
    return payloads.pack_blocks(
        (block.header.encoded, [transaction.raw for transaction in block.transactions], pack_certificate(certificate))
        for block, certificate in pairs
    )


def check_payloads(data: bytes) -> None:
    """Each other payload of the network, chosen by the first byte."""
    if not data:
        return
    unpack, pack = _PAYLOADS[data[0] % len(_PAYLOADS)]
    try:
        value = unpack(data[1:])
    except PeerError:
        return
    assert unpack(pack(value)) == value


def seed_payloads() -> list[bytes]:
    block = _blocks()[0]
    certificate = Certificate(8, 2, block.hash, (_signed(Kind.COMMIT, block.hash).signature,))
    values: list[object] = [
        (8, block.hash),
        [transaction.hash for transaction in block.transactions],
        [transaction.raw for transaction in block.transactions],
        (3, 4),
        [(block, certificate)],
    ]
    return [bytes([n]) + pack(value) for n, ((_, pack), value) in enumerate(zip(_PAYLOADS, values, strict=True))]


# RLP


def check_rlp(data: bytes) -> None:
    """Canonical bytes alone are read, and what is read is what another implementation reads."""
    try:
        item = rlp.decode(data)
    except rlp.RlpError:
        return
    assert rlp.encode(item) == data
    assert _as_lists(independent_rlp.decode(data, strict=True)) == _as_lists(item)


def _as_lists(item: object) -> object:
    return [_as_lists(part) for part in item] if isinstance(item, (list, tuple)) else bytes(item)  # type: ignore[call-overload]


def check_transactions(data: bytes) -> None:
    """A transaction keeps its bytes, is canonical RLP, and has a sender or says why not; so does a header."""
    try:
        header = decode_header(data)
        assert rlp.encode([*rlp.decode(data)]) == data == header.encoded
    except InvalidBlock:
        pass
    try:
        transaction = decode_transaction(data)
    except InvalidTransaction:
        return
    assert transaction.raw == data
    assert transaction.hash == keccak256(data)
    body = data if data[0] >= 0xC0 else data[1:]
    assert rlp.encode(rlp.decode(body)) == body
    try:
        assert len(transaction.sender) == 20
    except InvalidTransaction:
        return


def seed_transactions() -> list[bytes]:
    listed = sign_transaction(
        KEY, chain_id=7770, nonce=1, to=KEY.address, gas_limit=90_000, access_list=[(KEY.address, [bytes(32)])]
    )
    return [*(transaction.raw for transaction in _blocks()[0].transactions), listed.raw, _blocks()[0].header.encoded]


# JSON from strangers


def check_records(data: bytes) -> None:
    """A bootnode takes a record and shows just that, or refuses it."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    table = Table(DOMAIN, reserved=[KEY.address], open_seats=2, record_life_s_max=7_200)
    try:
        table.put(document, now_s=NOW_S)
    except PeerError:
        return
    assert [record_document(record) for record in table.records()] == [record_document(parse_record(document, DOMAIN))]


def seed_records() -> list[bytes]:
    record = sign_record(
        KEY, DOMAIN, endpoints=("validator-1:30303", "[::1]:30303"), sequence=4, expires_at_s=NOW_S + 60, name="one",
        rpc_url="http://validator-1:8001",
    )  # fmt: skip
    return [orjson.dumps(record_document(record))]


def check_json(data: bytes) -> None:
    """What the strict reader of receipts accepts is what the standard library reads."""
    try:
        value = loads(data, bytes_max=1 << 20)
    except Malformed:
        return
    assert value == json.loads(data)


def seed_json() -> list[bytes]:
    return [b'{"a": [1, -2, "\\u00e9", null, true, {"b": []}]}', b'"0x00"']


# Files that a crash may have torn


def check_guard(data: bytes) -> None:
    """A guard file with any tail is read to its last whole record, or refused."""
    try:
        _, whole = replay(create_records(DOMAIN, KEY.address) + data, DOMAIN, KEY.address)
    except GuardCorrupt:
        return
    assert whole <= len(create_records(DOMAIN, KEY.address)) + len(data)


def seed_guards() -> list[bytes]:
    return [create_records(DOMAIN, KEY.address), msgpack.packb([1, [[2, 8, 1]]])]


TARGETS = {
    "frames": Target(check_frames, seed_frames),
    "handshake": Target(check_handshake, seed_frames),
    "identity": Target(check_certificate_of_peer, seed_certificates),
    "messages": Target(check_messages, seed_messages),
    "payloads": Target(check_payloads, seed_payloads),
    "rlp": Target(check_rlp, lambda: [*seed_transactions(), rlp.encode([b"", [b"\x01", [b"x" * 60]]])]),
    "transactions": Target(check_transactions, seed_transactions),
    "records": Target(check_records, seed_records),
    "json": Target(check_json, seed_json),
    "guard": Target(check_guard, seed_guards),
}
