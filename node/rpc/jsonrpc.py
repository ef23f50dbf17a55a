"""JSON-RPC 2.0's rules, pure: bytes in to requests, results and errors out to bytes (jsonrpc.org/specification)."""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import orjson

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000  # what geth answers for most refusals by the chain's rules
TIMED_OUT = -32002
RESPONSE_TOO_LARGE = -32003
LIMIT_EXCEEDED = -32005  # EIP-1474
REVERTED = 3  # geth's code for a refused call; `data` is the ABI-encoded error

Id: TypeAlias = str | int | float | None
Params: TypeAlias = list[Any] | dict[str, Any]


class RpcError(Exception):
    """An answer that is an error: JSON-RPC's `code`, `message` and, where there is some, `data`."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


def invalid_params(message: str) -> RpcError:
    """The caller's parameters are malformed; `message` names the parameter and what was expected."""
    return RpcError(INVALID_PARAMS, message)


class Request(NamedTuple):
    """A well-formed request. A notification is executed and never answered, whatever comes of it."""

    method: str
    params: Params
    id: Id
    is_notification: bool = False


@dataclass(frozen=True, slots=True)
class Invalid:
    """A member of a batch, or a whole message, that is no request; it is answered with `error`."""

    error: RpcError
    id: Id = None


class Message(NamedTuple):
    """What one HTTP body or WebSocket message held. A batch is answered by a list, however short."""

    items: tuple[Request | Invalid, ...]
    is_batch: bool


def read(body: bytes, *, batch_items_max: int, depth_max: int) -> Message:
    """Read one message. What cannot be read at all becomes a single `Invalid`, as the specification demands."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return _refused(PARSE_ERROR, f"parse error: {error}")
    if body.count(b"[") + body.count(b"{") > depth_max and _is_deeper(document, depth_max):
        return _refused(INVALID_REQUEST, f"nested too deeply: at most {depth_max} arrays and objects in one another")
    if not isinstance(document, list):
        return Message((_read_request(document),), is_batch=False)
    if not document:
        return _refused(INVALID_REQUEST, "empty batch")
    if len(document) > batch_items_max:
        return _refused(INVALID_REQUEST, f"batch too large: {len(document)} requests, at most {batch_items_max}")
    return Message(tuple(map(_read_request, document)), is_batch=True)


def _is_deeper(document: object, depth_max: int) -> bool:
    """Whether arrays and objects nest deeper: what handles them later may recurse, and must not run out of stack."""
    level = [document]
    for _ in range(depth_max):
        inner: list[object] = []
        for value in level:
            if isinstance(value, (list, dict)):
                inner += value if isinstance(value, list) else value.values()
        level = [value for value in inner if isinstance(value, (list, dict))]
        if not level:
            return False
    return True


def _refused(code: int, message: str) -> Message:
    return Message((Invalid(RpcError(code, message)),), is_batch=False)


def _read_request(document: object) -> Request | Invalid:
    if not isinstance(document, dict):
        return Invalid(RpcError(INVALID_REQUEST, "invalid request: a request is an object"))
    id_ = document.get("id")
    if isinstance(id_, bool) or not (id_ is None or isinstance(id_, (str, int, float))):
        return Invalid(RpcError(INVALID_REQUEST, "invalid request: 'id' is a string, a number or null"))
    if document.get("jsonrpc") != "2.0":
        return Invalid(RpcError(INVALID_REQUEST, "invalid request: 'jsonrpc' is exactly \"2.0\""), id_)
    method = document.get("method")
    if not isinstance(method, str):
        return Invalid(RpcError(INVALID_REQUEST, "invalid request: 'method' is a string"), id_)
    params = document.get("params")
    if params is None:  # left out; null is taken for the same, as geth does
        params = []
    elif not isinstance(params, (list, dict)):
        return Invalid(RpcError(INVALID_REQUEST, "invalid request: 'params' is an array or an object"), id_)
    return Request(method, params, id_, "id" not in document)


def write_result(id_: Id, result: object) -> bytes:
    """The response that carries a result."""
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "result": result})


def write_error(id_: Id, error: RpcError) -> bytes:
    """The response that carries an error."""
    fields: dict[str, object] = {"code": error.code, "message": error.message}
    if error.data is not None:
        fields["data"] = error.data
    return orjson.dumps({"jsonrpc": "2.0", "id": id_, "error": fields})


def write_batch(responses: list[bytes]) -> bytes:
    """The responses of a batch, encoded already, as one array."""
    return b"[" + b",".join(responses) + b"]"
