"""The override: operators declare a quorum lost for good, and name who decides the next height in its place.

It breaks the chain of certificates on purpose: the block above `height` is decided by validators whom nobody elected.
So nothing follows from an override by itself. It holds only for a verifier whose own operator has given it the file.
The signatures, one of each validator that it names, show that these exist, and agree to exactly this; they are no
reason to believe it.

What is signed: keccak256(0x19 ‖ "psephos-override" ‖ rlp([chain id, genesis hash, height, parent hash,
[validators, ascending]])). No consensus statement or transaction can equal it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from merkle import rlp
from merkle.keccak import keccak256
from node.chain import signing
from node.chain.block import Header
from node.chain.domain import Domain
from node.chain.errors import InvalidSignature
from node.chain.genesis import VALIDATORS_MAX, validators_hash
from node.consensus.messages import HEIGHT_MAX, Recover

PREFIX = b"\x19psephos-override"
FILE_BYTES_MAX = 1 << 20
_FIELDS = {"chainId", "genesisHash", "height", "parentHash", "validators", "signatures"}


class OverrideError(RuntimeError):
    """An override cannot be used; the text says which part of it, what it is and what was expected."""


@dataclass(frozen=True, slots=True)
class Override:
    """`validators`, ascending, decide the height above `height`, whose final block is `parent_hash`.

    `signatures` (65 bytes each) are in no particular order.
    """

    domain: Domain
    height: int
    parent_hash: bytes
    validators: tuple[bytes, ...]
    signatures: tuple[bytes, ...] = ()

    @property
    def digest(self) -> bytes:
        """The 32 bytes that each of its validators signs."""
        fields = (
            rlp.encode(rlp.encode_int(self.domain.chain_id)),
            rlp.encode(self.domain.genesis_hash),
            rlp.encode(rlp.encode_int(self.height)),
            rlp.encode(self.parent_hash),
            rlp.encode_list([rlp.encode(address) for address in self.validators]),
        )
        return keccak256(PREFIX + rlp.encode_list(fields))

    @property
    def committed(self) -> bytes:
        """What `extra_data` of the block that puts it in place must be: it changes nothing else."""
        return validators_hash(self.validators)

    def follows(self, header: Header) -> bool:
        """Whether it names who decides the block after this one."""
        return header.number == self.height and header.hash == self.parent_hash

    def signed(self, key: signing.SigningKey) -> "Override":
        """The same with a signature of `key` more; signing twice changes nothing."""
        signature = key.sign(self.digest)
        if signature in self.signatures:
            return self
        return replace(self, signatures=(*self.signatures, signature))

    def signers(self, recover: Recover = signing.recover) -> tuple[bytes, ...]:
        """Who has signed it. Raises OverrideError for a signature that is none."""
        try:
            return tuple(recover(self.digest, signature) for signature in self.signatures)
        except InvalidSignature as error:
            raise OverrideError(f"a signature of the override of height {self.height}: {error}") from None


def verify_override(override: Override, recover: Recover = signing.recover) -> None:
    """Raise OverrideError unless exactly the validators that it names have signed it."""
    signers = override.signers(recover)
    missing = [address for address in override.validators if address not in signers]
    strangers = [address for address in signers if address not in override.validators]
    if missing:
        raise OverrideError(
            f"the override of height {override.height} lacks the signature of 0x{missing[0].hex()}: each validator "
            "that it names signs it"
        )
    if strangers or len(set(signers)) != len(signers):
        raise OverrideError(f"the override of height {override.height} has a signature too many")


def override_after(header: Header, overrides: Iterable[Override]) -> Override | None:
    """The override that names who decides the block after `header`, if one of them does."""
    return next((override for override in overrides if override.follows(header)), None)


def override_document(override: Override) -> dict[str, object]:
    """The JSON object that `parse_override` reads back."""
    return {
        "chainId": override.domain.chain_id,
        "genesisHash": _hex(override.domain.genesis_hash),
        "height": override.height,
        "parentHash": _hex(override.parent_hash),
        "validators": [_hex(address) for address in override.validators],
        "signatures": [_hex(signature) for signature in override.signatures],
    }


def parse_override(document: object) -> Override:
    """The override of a JSON object, its form checked and no signature. Raises OverrideError."""
    if not isinstance(document, Mapping) or set(document) != _FIELDS:
        raise OverrideError(f"an override is an object of {', '.join(sorted(_FIELDS))}, not {document!r:.100}")
    validators = _data_list(document, "validators", 20)
    if not validators or list(validators) != sorted(set(validators)):
        raise OverrideError("override field 'validators': expected addresses, ascending, each once")
    return Override(
        domain=Domain(_number(document, "chainId"), _data(document["genesisHash"], "genesisHash", 32)),
        height=_number(document, "height"),
        parent_hash=_data(document["parentHash"], "parentHash", 32),
        validators=validators,
        signatures=_data_list(document, "signatures", signing.SIGNATURE_BYTES),
    )


def parse_overrides(text: bytes) -> tuple[Override, ...]:
    """What an override file holds: one object, or a list of them if a chain needed several; no signature looked at.

    Raises OverrideError.
    """
    if len(text) > FILE_BYTES_MAX:
        raise OverrideError(f"it has more than {FILE_BYTES_MAX} bytes")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise OverrideError(f"it is not JSON: {error}") from None
    overrides = tuple(map(parse_override, document if isinstance(document, list) else [document]))
    if len({override.height for override in overrides}) != len(overrides):
        raise OverrideError("it has two overrides of one height")
    return overrides


def _hex(data: bytes) -> str:
    return "0x" + data.hex()


def _number(document: Mapping[object, object], name: str) -> int:
    value = document[name]
    if type(value) is not int or not 0 <= value <= HEIGHT_MAX:
        raise OverrideError(f"override field '{name}' is {value!r:.100}; expected a number from 0 to {HEIGHT_MAX}")
    return value


def _data(value: object, name: str, length: int) -> bytes:
    if isinstance(value, str) and len(value) == 2 + 2 * length and value[:2] == "0x":
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            data = b""
        if len(data) == length:  # fromhex skips spaces
            return data
    raise OverrideError(f"override field '{name}' has {value!r:.160}; expected 0x and {2 * length} hex digits")


def _data_list(document: Mapping[object, object], name: str, length: int) -> tuple[bytes, ...]:
    values = document[name]
    if not isinstance(values, list) or len(values) > VALIDATORS_MAX:
        raise OverrideError(f"override field '{name}' is {values!r:.100}; expected a list of up to {VALIDATORS_MAX}")
    return tuple(_data(value, name, length) for value in values)
