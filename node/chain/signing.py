"""secp256k1: recoverable, low-s, deterministic (RFC 6979) signatures, and the addresses behind them."""

from coincurve import PrivateKey, PublicKey

from merkle.keccak import keccak256
from node.chain.errors import InvalidSignature

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
HALF_ORDER = ORDER // 2
_HALF_ORDER_BYTES = HALF_ORDER.to_bytes(32, "big")
SIGNATURE_BYTES = 65  # r (32) ‖ s (32) ‖ y parity (1: 0 or 1)


class SigningKey:
    """A secp256k1 private key and its Ethereum address. Its text form never shows the secret."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes. Raises ValueError when it is not a valid private key."""
        if len(secret) != 32:
            raise ValueError(f"a private key has 32 bytes, not {len(secret)}")
        self._key = PrivateKey(secret)
        self.address = _address(self._key.public_key)

    def sign(self, digest: bytes) -> bytes:
        """Sign a 32-byte digest; 65 bytes, r ‖ s ‖ y parity, low s. The same digest gives the same bytes."""
        return self._key.sign_recoverable(digest, hasher=None)

    @property
    def public_key(self) -> bytes:
        """The public key, compressed: 33 bytes."""
        return self._key.public_key.format()

    @property
    def secret(self) -> bytes:
        """The 32 bytes, for writing a key file and nothing else."""
        return self._key.secret

    def __repr__(self) -> str:
        return f"SigningKey(address=0x{self.address.hex()})"


def recover(digest: bytes, signature: bytes) -> bytes:
    """The 20-byte address whose key made `signature` over the 32-byte `digest`.

    Raises InvalidSignature on a wrong length, a parity other than 0 or 1, r or s out of range, and high s (EIP-2).
    """
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidSignature(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}")
    if signature[64] > 1:
        raise InvalidSignature(f"y parity is 0 or 1, not {signature[64]}")
    if signature[32:64] > _HALF_ORDER_BYTES:
        raise InvalidSignature("s is in the upper half of the order")
    try:
        return _address(PublicKey.from_signature_and_message(signature, digest, hasher=None))
    except ValueError as error:  # coincurve: r or s is zero or too large, or no point has this r
        raise InvalidSignature(f"no public key has this signature ({error})") from None


def _address(key: PublicKey) -> bytes:
    return keccak256(key.format(compressed=False)[1:])[12:]
