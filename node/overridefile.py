"""Override files: one override as JSON, or a list of them where a chain has needed several."""

import json
from pathlib import Path

from node.consensus.override import FILE_BYTES_MAX, Override, OverrideError, override_document, parse_overrides


def read_overrides(path: Path) -> tuple[Override, ...]:
    """The overrides in a file, their form checked and no signature. Raises OverrideError."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        return parse_overrides(text)
    except OSError as error:
        raise OverrideError(f"cannot read the override file {path}: {error.strerror}") from None
    except OverrideError as error:
        raise OverrideError(f"{path}: {error}") from None


def override_text(override: Override) -> str:
    """What an override file holds."""
    return json.dumps(override_document(override), indent=2) + "\n"
