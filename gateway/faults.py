"""What is wrong with what a caller sent, in words: the field, what was expected, and what was given."""

from collections.abc import Iterable
from typing import Any

import orjson
from pydantic import ValidationError

from gateway.problems import Problem

SHOWN_MAX = 64  # characters of a value
# What links voters and ballots, or may hold a password, is shown to nobody by an answer that a proxy may write down.
# Nor is a whole body (""), or a vote that is no object.
PRIVATE = frozenset({"", "votes", "voter_id", "choice", "encrypted_vote", "transaction_id", "callback_url"})

_KINDS = {"model_type": "expected an object"}


def not_valid(name: str, given: object, expected: str) -> Problem:
    """The answer to a parameter that is not what it should be."""
    return Problem(422, "not-valid", f"{name}: expected {expected} (given: {shown(given, name)}).")


def invalid_body(error: ValidationError, document: object) -> Problem:
    """The answer to a body that its model refuses; `errors` has a member for each field."""
    messages: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for fault in error.errors(include_url=False):
        path = _path(fault["loc"], document, is_missing=fault["type"] == "missing")
        field = ".".join(map(str, path))
        cause = fault.get("ctx", {}).get("error")
        said = str(cause) if isinstance(cause, ValueError) else _KINDS.get(fault["type"], fault["msg"])
        if said not in messages.setdefault(field, []):
            messages[field].append(said)
        if fault["type"] != "missing" and (path or not isinstance(document, dict)):
            name = next((part for part in reversed(path) if isinstance(part, str)), "")
            given.setdefault(field, shown(fault["input"], name))
    faults = [
        {"field": field, "message": ", or ".join(said)} | ({"given": given[field]} if field in given else {})
        for field, said in messages.items()
    ]
    words = "; ".join(_words(**fault) for fault in faults)
    return Problem(422, "not-valid", f"The body is not valid: {words}.", errors=faults)


def _words(field: str, message: str, given: str | None = None) -> str:
    return f"{field or 'body'}: {message}" + ("" if given is None else f" (given: {given})")


def _path(location: Iterable[int | str], document: Any, *, is_missing: bool) -> list[int | str]:
    """The part of pydantic's location that is in the document: it names the members of unions, too."""
    found: list[int | str] = []
    parts = list(location)
    for position, part in enumerate(parts):
        if isinstance(document, dict) and (part in document or (is_missing and position == len(parts) - 1)):
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            continue
        found.append(part)
    return found


def shown(value: object, name: str) -> str:
    """A value as an answer repeats it: shortened, and its kind alone where the field's value is nobody's business."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str) and (name in PRIVATE or len(value) > SHOWN_MAX):
        return f"text of {len(value)} characters" + ("" if name in PRIVATE else f", {_text(value[:SHOWN_MAX])}…")
    if name in PRIVATE and isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    return _text(value)


def _text(value: object) -> str:
    """As JSON; what JSON has no form for comes from a caller in this process alone, and is not to fail here."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        value = value.encode(errors="replace").decode()
    return orjson.dumps(value, default=lambda _: "?").decode()
