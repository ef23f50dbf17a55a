"""Log lines for people and for machines."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.logs import (
    REQUEST_ID,
    REQUEST_IDS_AT_ONCE,
    JsonFormatter,
    TextFormatter,
    configure,
    fields,
    new_request_id,
    read_request_id,
)


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("node.service", logging.INFO, "f.py", 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


@given(st.text(max_size=80))
@example("a\x85b\u2028c\r\n\x1b[2J")
def test_a_record_is_one_line_whatever_it_says(text: str) -> None:
    """Peers choose names, callers choose paths: none of them may forge a line or move a terminal's cursor."""
    for formatter in (TextFormatter("validator-1"), JsonFormatter("validator-1")):
        line = formatter.format(record("peer %s came", text))
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line
    assert json.loads(JsonFormatter("v").format(record("peer %s came", text)))["message"] == f"peer {text} came"


def test_json_carries_fields_and_the_request() -> None:
    token = REQUEST_ID.set("abc-1")
    try:
        line = JsonFormatter("gateway").format(
            record("level %d", 3, **fields(event="level", gateway_level=3, level="forged"))
        )
        text = TextFormatter("gateway").format(
            record("level %d", 3, **fields(event="level", gateway_level=3, level="forged"))
        )
    finally:
        REQUEST_ID.reset(token)
    document = json.loads(line)
    assert document["time"].endswith("Z")
    expected = {
        "level": "INFO", "event": "level", "gateway_level": 3, "process": "gateway", "logger": "node.service",
        "message": "level 3", "request_id": "abc-1",
    }  # fmt: skip
    assert {name: value for name, value in document.items() if name != "time"} == expected
    assert text.endswith("INFO    gateway level 3 [abc-1]")


def test_a_stack_trace_is_inside_the_object_and_behind_the_line() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        failed = record("it failed")
        failed.exc_info = (type(error), error, error.__traceback__)
    document = json.loads(JsonFormatter("v").format(failed))
    assert "ValueError: no" in document["exception"]
    first, *rest = TextFormatter("v").format(failed).splitlines()
    assert first.endswith("it failed")
    assert rest[-1] == "ValueError: no"


@pytest.mark.parametrize(
    ("given_", "read"), [("a-b_c.1", "a-b_c.1"), (None, ""), ("a b", ""), ("x" * 65, ""), ("é", "")]
)
def test_request_ids_that_cannot_stand_in_a_log_are_none(given_: str | None, read: str) -> None:
    assert read_request_id(given_) == read


@pytest.fixture
def restored() -> Iterator[None]:
    """The root logger as pytest left it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    root.setLevel(level)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("format_", ["text", "json"])
def test_everything_goes_to_standard_error(format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure("validator-1", "INFO", format_)  # type: ignore[arg-type]
    configure("validator-1", "INFO", format_)  # type: ignore[arg-type]  # once more changes nothing
    logging.getLogger("anywhere").info("hello")
    logging.getLogger("anywhere").debug("quiet")
    (line,) = stream.getvalue().splitlines()
    assert "hello" in line
    assert line.startswith("{") == (format_ == "json")


def test_new_request_ids_are_all_different_and_can_stand_in_a_log() -> None:
    made = [new_request_id() for _ in range(3 * REQUEST_IDS_AT_ONCE)]
    assert len(set(made)) == len(made)
    assert all(len(one) == 32 and read_request_id(one) == one for one in made)
