"""What of a product, or any JSON value, goes into a leaf of a batch's tree: one text for each value, pure."""

import json


def leaf_of(value: object) -> bytes:
    """The leaf's data: a string's own UTF-8; of any other JSON value its canonical JSON.

    Canonical: names sorted by code point, no white space, nothing escaped that need not be, numbers as Python's `json`
    writes them. Two values that read the same are the same leaf. Raises ValueError for what is no JSON.
    """
    try:
        if isinstance(value, str):
            return value.encode()
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (UnicodeEncodeError, TypeError, RecursionError) as error:
        raise ValueError(f"a leaf is text or a JSON value: {error}") from None
