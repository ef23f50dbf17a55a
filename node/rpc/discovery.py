"""`rpc.discover` and `rpc_modules`: what a listener answers, from the descriptions by which parameters are read."""

from collections.abc import Mapping
from typing import Any

from node.rpc.methods import Kind, Method, Param, methods_of, rpc

OPENRPC_VERSION = "1.3.2"
OPENRPC = Kind({"type": "object", "required": ["openrpc", "info", "methods"], "title": "OpenRPC document"})


def group_of(name: str) -> str:
    """The group that a method's name puts it in: `eth` of `eth_call`, `rpc` of `rpc.discover`."""
    return name.partition("_")[0].partition(".")[0]


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
                "tags": [{"name": group_of(method.name)}],
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
        self._methods = dict(methods)
        self._version = version
        self._methods |= methods_of(self)

    @rpc("rpc.discover", result=OPENRPC)
    def discover(self) -> dict[str, Any]:
        """The OpenRPC document of this node: every method, its parameters and its result, with JSON schemas."""
        return openrpc_document(self._methods, self._version)

    @rpc("rpc_modules", result=Kind({"type": "object", "additionalProperties": {"type": "string"}}))
    def modules(self) -> dict[str, str]:
        """The groups of methods that are answered here, with their versions."""
        return dict.fromkeys(sorted({group_of(name) for name in self._methods}), "1.0")
