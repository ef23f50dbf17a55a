"""Override files: one override as JSON, or a list of them where a chain has needed several."""

import json
from pathlib import Path

from node.consensus.override import Override, OverrideError, override_document, parse_override

FILE_BYTES_MAX = 1 << 20


def read_overrides(path: Path) -> tuple[Override, ...]:
    """The overrides in a file, their form checked and no signature. Raises OverrideError."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        document = json.loads(data)
    except OSError as error:
        raise OverrideError(f"cannot read the override file {path}: {error.strerror}") from None
    except ValueError as error:
        raise OverrideError(f"{path} is not JSON: {error}") from None
    items = document if isinstance(document, list) else [document]
    try:
        overrides = tuple(map(parse_override, items))
    except OverrideError as error:
        raise OverrideError(f"{path}: {error}") from None
    heights = [override.height for override in overrides]
    if len(set(heights)) != len(heights):
        raise OverrideError(f"{path} has two overrides of one height")
    return overrides


def override_text(override: Override) -> str:
    """What an override file holds."""
    return json.dumps(override_document(override), indent=2) + "\n"
