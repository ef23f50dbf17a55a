"""Intrinsic gas as of London, and how much of its gas limit a block may use."""

AccessList = tuple[tuple[bytes, tuple[bytes, ...]], ...]  # addresses, and slots of each (EIP-2930)

TRANSACTION_GAS = 21_000
ZERO_BYTE_GAS = 4
OTHER_BYTE_GAS = 16  # EIP-2028
ACCESS_ADDRESS_GAS = 2_400  # EIP-2930
ACCESS_SLOT_GAS = 1_900


def intrinsic_gas_of(data: bytes, access_list: AccessList = ()) -> int:
    """Gas that a call with this data costs before it does anything (yellow paper 6.2, EIP-2028, EIP-2930)."""
    gas = TRANSACTION_GAS
    if data:
        gas += OTHER_BYTE_GAS * len(data) - (OTHER_BYTE_GAS - ZERO_BYTE_GAS) * data.count(0)
    for _, slots in access_list:
        gas += ACCESS_ADDRESS_GAS + ACCESS_SLOT_GAS * len(slots)
    return gas


def usable_gas(gas_limit: int) -> int:
    """Gas that a block of this limit may use: EIP-1559's target, below which the base fee stays 0."""
    return gas_limit // 2
