"""One entry for each call of the HTTP API: from it come the route, who may call it, and its documentation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from gateway.access import Need
from gateway.answers import example_of
from serving.straight import Handler


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of path, query or header: its JSON Schema, an example, and what it is."""

    name: str
    schema: Mapping[str, Any]
    example: Any
    text: str
    required: bool = False
    where: str = "query"


@dataclass(frozen=True, slots=True)
class Reply:
    """One possible answer: its model, what it means, and members of its example that differ from the model's own."""

    model: type[BaseModel] | Mapping[str, Any]
    text: str
    instead: Mapping[str, Any] = field(default_factory=dict)
    media_type: str = "application/json"
    example: Any = None

    @property
    def shown(self) -> Any:
        """The literal example."""
        if self.example is not None or isinstance(self.model, Mapping):
            return self.example
        return example_of(self.model, **self.instead)


@dataclass(frozen=True, slots=True)
class Operation:
    """A call: `replies` by status, and the statuses of the problems that it may answer besides."""

    method: str
    path: str
    handler: Handler
    need: Need
    tag: str
    replies: Mapping[int, Reply]
    problems: Sequence[int] = ()
    body: type[BaseModel] | None = None
    body_example: Mapping[str, Any] | None = None
    parameters: Sequence[Parameter] = ()
    waits: bool = False  # takes `Prefer: wait=SECONDS`

    @property
    def name(self) -> str:
        """The operationId."""
        module = self.handler.__module__.rpartition(".")[2]
        return f"{module}_{self.handler.__name__}".replace("__", "_")

    @property
    def text(self) -> str:
        """What the handler's docstring says."""
        return " ".join((self.handler.__doc__ or "").split())
