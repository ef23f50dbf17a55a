"""Keccak-256, the hash of every Ethereum format.

safe-pysha3's C implementation is named outright: libraries that choose a backend themselves may
fall back, silently, to one that is seven times slower.
"""

import sha3

_keccak_256 = sha3.keccak_256
if getattr(_keccak_256, "__module__", "") != "_pysha3":  # a namesake package, or a pure Python stand-in
    raise ImportError(
        "keccak-256 needs the C module of safe-pysha3, and the module 'sha3' that was found is another one; "
        "reinstall the locked requirements"
    )


def keccak256(data: bytes) -> bytes:
    """Return the 32-byte Keccak-256 digest of `data` (Ethereum yellow paper, appendix B)."""
    digest: bytes = _keccak_256(data).digest()
    return digest
