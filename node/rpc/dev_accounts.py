"""The accounts that a node signs with for its callers, on development networks: those of the well-known mnemonic.

Derived as every wallet does: BIP-39's seed, then BIP-32 along BIP-44's path m/44'/60'/0'/0/i. The mnemonic is public
and its accounts are worth nothing anywhere else.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator

from node.chain.genesis import Genesis
from node.chain.signing import ORDER, SigningKey

MNEMONIC = "test test test test test test test test test test test junk"
COUNT = 64
_HARDENED = 1 << 31
_PATH = (44 + _HARDENED, 60 + _HARDENED, _HARDENED, 0)


class DevAccounts:
    """Keys by address, in the mnemonic's order."""

    def __init__(self, keys: Iterable[SigningKey] = ()) -> None:
        self._keys = {key.address: key for key in keys}

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def get(self, address: bytes) -> SigningKey | None:
        """The key of an account, or None when it is not one of these."""
        return self._keys.get(address)


def dev_accounts(genesis: Genesis) -> DevAccounts:
    """The mnemonic's accounts that `genesis` gives something; a network that funds none of them has none."""
    return DevAccounts(key for key in derive(MNEMONIC, COUNT) if genesis.alloc.get(key.address))


def derive(mnemonic: str, count: int) -> list[SigningKey]:
    """The first `count` keys of a mnemonic without a passphrase (BIP-39, path m/44'/60'/0'/0/i)."""
    seed = hashlib.pbkdf2_hmac("sha512", mnemonic.encode(), b"mnemonic", 2_048)
    node = _split(hmac.digest(b"Bitcoin seed", seed, "sha512"))
    for index in _PATH:
        node = _child(*node, index)
    return [SigningKey(_child(*node, index)[0]) for index in range(count)]


def _child(secret: bytes, chain_code: bytes, index: int) -> tuple[bytes, bytes]:
    """BIP-32's child private key. A sum of zero, as likely as guessing a key, makes SigningKey raise ValueError."""
    parent = b"\x00" + secret if index >= _HARDENED else SigningKey(secret).public_key
    left, right = _split(hmac.digest(chain_code, parent + index.to_bytes(4, "big"), "sha512"))
    child = (int.from_bytes(left, "big") + int.from_bytes(secret, "big")) % ORDER
    return child.to_bytes(32, "big"), right


def _split(digest: bytes) -> tuple[bytes, bytes]:
    return digest[:32], digest[32:]
