"""Methods as data: name, parameters, descriptions and handler, so that what dispatches can also be documented."""

import inspect
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from node.rpc.jsonrpc import Params, invalid_params

JsonSchema = dict[str, Any]
Handler = Callable[..., Any]  # plain or async; gets the parsed parameters in their order
BulkHandler = Callable[[Sequence[Sequence[Any]]], Coroutine[Any, Any, Sequence[object]]]
F = TypeVar("F", bound=Handler)

_ATTRIBUTE: Final = "__rpc_method__"


class BadValue(ValueError):
    """A parameter's value is not of its kind; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of parameter or result: its JSON schema, and for parameters how to read it (raises ValueError)."""

    schema: JsonSchema
    parse: Callable[[object], Any] = lambda value: value


@dataclass(frozen=True, slots=True)
class Param:
    """One positional parameter. An optional one that is left out, or null, has the value `default`."""

    name: str
    kind: Kind
    description: str
    required: bool = True
    default: Any = None


def optional(name: str, kind: Kind, description: str, default: Any = None) -> Param:
    """A parameter that may be left out."""
    return Param(name, kind, description, required=False, default=default)


@dataclass(frozen=True, slots=True)
class Method:
    """A method that clients may call. `bulk`, where there is one, answers all calls of one batch together."""

    name: str
    summary: str
    params: tuple[Param, ...]
    result: Kind
    handler: Handler
    bulk: BulkHandler | None = None

    def arguments(self, params: Params) -> list[Any]:
        """The parsed arguments. Raises RpcError -32602, which names the parameter and what was expected."""
        values = self._by_name(params) if isinstance(params, dict) else params
        if len(values) > len(self.params):
            raise invalid_params(f"too many arguments, want at most {len(self.params)}")
        arguments = []
        for position, param in enumerate(self.params):
            value = values[position] if position < len(values) else None
            if value is None:
                if param.required:
                    raise invalid_params(f"missing value for required argument {position} ({param.name})")
                arguments.append(param.default)
                continue
            try:
                arguments.append(param.kind.parse(value))
            except ValueError as error:
                raise invalid_params(f"invalid argument {position} ({param.name}): {error}") from None
        return arguments

    def _by_name(self, params: dict[str, Any]) -> list[Any]:
        names = [param.name for param in self.params]
        for name in params:
            if name not in names:
                known = ", ".join(names) or "none"
                raise invalid_params(f"unknown parameter {shown(name)}; the method's parameters are: {known}")
        return [params.get(name) for name in names]


@dataclass(frozen=True, slots=True)
class _Description:
    name: str
    params: tuple[Param, ...]
    result: Kind
    summary: str
    bulk: str


def rpc(name: str, *params: Param, result: Kind, bulk: str = "") -> Callable[[F], F]:
    """Mark a class's method as the JSON-RPC method `name`. Its docstring's first line is the summary.

    `bulk` names another method of the class, a `BulkHandler`.
    """

    def mark(function: F) -> F:
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        setattr(function, _ATTRIBUTE, _Description(name, params, result, summary, bulk))
        return function

    return mark


def methods_of(group: object) -> dict[str, Method]:
    """The marked methods of an object, bound to it, by name."""
    found: dict[str, Method] = {}
    for attribute, function in inspect.getmembers(type(group), callable):
        description = getattr(function, _ATTRIBUTE, None)
        if isinstance(description, _Description):
            found[description.name] = Method(
                name=description.name,
                summary=description.summary,
                params=description.params,
                result=description.result,
                handler=getattr(group, attribute),
                bulk=getattr(group, description.bulk) if description.bulk else None,
            )
    return found


def registry(groups: Iterable[object]) -> dict[str, Method]:
    """The methods of several objects. Raises ValueError when two claim one name."""
    methods: dict[str, Method] = {}
    for group in groups:
        for name, method in methods_of(group).items():
            if name in methods:
                raise ValueError(f"two methods are named {name}")
            methods[name] = method
    return methods


def shown(value: object) -> str:
    """`value` as an error message may repeat it: short, whatever the caller sent."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
