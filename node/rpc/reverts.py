"""What a refused call is told in words: the error's name and arguments, behind geth's "execution reverted"."""

from node.chain.contracts.contract import Abi

_TEXT_CHARS_MAX = 200


def describe_revert(output: bytes, abi: Abi | None) -> str:
    """The message for revert data. The data itself goes beside it, for whoever has the ABI."""
    error = abi.decode_error(output) if abi else None
    if error is None:
        return "execution reverted"
    name, arguments = error
    text = f"execution reverted: {name}({', '.join(map(_shown, arguments))})"
    return text if len(text) <= _TEXT_CHARS_MAX else text[: _TEXT_CHARS_MAX - 3] + "..."


def _shown(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)
