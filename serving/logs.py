"""Log lines: text for a person or JSON for a machine, one line a record, with the request that it belongs to."""

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

Format = Literal["text", "json"]
Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is being served, as its caller or this process named it; empty outside of one."""

REQUEST_ID_HEADER = "X-Request-Id"
REQUEST_IDS_AT_ONCE = 256
_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
# Everything that could end a line, move the cursor or hide text: peers and callers choose some of what is logged.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def read_request_id(given: str | None) -> str:
    """The id that a caller gave, or an empty string where it gave none, or one that cannot stand in a log."""
    return given if given is not None and _REQUEST_ID_FORM.fullmatch(given) else ""


def _request_ids() -> Iterator[str]:
    """128 random bits each, in hex; as many at a time as make the system's part of the cost small (0.2 µs, not 4)."""
    while True:
        digits = os.urandom(16 * REQUEST_IDS_AT_ONCE).hex()
        for begin in range(0, len(digits), 32):
            yield digits[begin : begin + 32]


_FRESH = _request_ids()


def new_request_id() -> str:
    """An id for a request whose caller gave none."""
    return next(_FRESH)


def fields(**values: object) -> dict[str, dict[str, object]]:
    """For `extra=`: values that a JSON line carries by name, beside the words that say the same to a person."""
    return {"fields": values}


class TextFormatter(logging.Formatter):
    """Time, level, process, message; what was asked, if anything was; control characters spelt out."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """The line; a stack trace follows on lines of its own."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        asked = f" [{request_id}]" if (request_id := REQUEST_ID.get()) else ""
        message = _CONTROL.sub(_spelt, record.getMessage())
        line = f"{moment},{record.msecs:03.0f} {record.levelname:<7} {self._name} {message}{asked}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC, RFC 3339), level, process, logger, message, then the record's own fields."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """The line, a stack trace inside it."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        document: dict[str, object] = {
            "time": f"{moment}.{record.msecs:03.0f}Z",
            "level": record.levelname,
            "process": self._name,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            document["request_id"] = request_id
        for name, value in getattr(record, "fields", {}).items():
            document.setdefault(name, value)
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def configure(name: str, level: str, format_: Format) -> None:
    """Send everything that this process logs to standard error, in this format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(name) if format_ == "json" else TextFormatter(name))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def _spelt(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
