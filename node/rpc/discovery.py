"""`rpc.discover`: the OpenRPC document, made of the very descriptions by which parameters are read."""

from collections.abc import Mapping
from typing import Any

from node.rpc.methods import Kind, Method, Param, rpc

OPENRPC_VERSION = "1.3.2"
OPENRPC = Kind({"type": "object", "required": ["openrpc", "info", "methods"], "title": "OpenRPC document"})


def _content(name: str, description: str, kind: Kind, required: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"name": name, "required": required, "schema": kind.schema}
    return content | ({"description": description} if description else {})


def _parameter(param: Param) -> dict[str, Any]:
    return _content(param.name, param.description, param.kind, param.required)


def openrpc_document(methods: Mapping[str, Method], version: str) -> dict[str, Any]:
    """The document that describes `methods` (spec.open-rpc.org)."""
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": "Psephos JSON-RPC", "version": version},
        "methods": [
            {
                "name": method.name,
                "summary": method.summary,
                "tags": [{"name": method.name.partition("_")[0].partition(".")[0]}],
                "paramStructure": "either",
                "params": [_parameter(param) for param in method.params],
                "result": _content("result", "", method.result, required=True),
            }
            for _, method in sorted(methods.items())
        ],
    }


class Discovery:
    """Tells what can be called."""

    def __init__(self, methods: Mapping[str, Method], version: str) -> None:
        self._methods = methods
        self._version = version

    @rpc("rpc.discover", result=OPENRPC)
    def discover(self) -> dict[str, Any]:
        """The OpenRPC document of this node: every method, its parameters and its result, with JSON schemas."""
        return openrpc_document(self._methods, self._version)
