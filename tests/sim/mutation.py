"""Plants a bug in real code at run time: a line of a function's source is replaced, wherever the function is known."""

import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any


class StaleMutant(RuntimeError):
    """The code that a mutant changes is not there any more; the mutant must follow it."""


@dataclass(frozen=True)
class Change:
    """In the function `path` ("package.module:Class.method"), replace `old`, which occurs once, by `new`."""

    path: str
    old: str
    new: str

    def place(self) -> tuple[ModuleType, Any, str]:
        """Where the function is: its module, what holds it there, and its name in that."""
        module_name, _, name = self.path.partition(":")
        module = importlib.import_module(module_name)
        owner, _, attribute = name.rpartition(".")
        return module, getattr(module, owner) if owner else module, attribute

    def apply(self) -> None:
        """Change it in this process, for good. Raises StaleMutant."""
        module, holder, attribute = self.place()
        original = inspect.getattr_static(holder, attribute)
        changed = self.changed(module, original)
        if holder is module:
            _replace_everywhere(original, changed)
        else:
            setattr(holder, attribute, changed)

    def changed(self, module: ModuleType, original: Any) -> Any:
        """The function with the bug in it. Raises StaleMutant."""
        source = textwrap.dedent(inspect.getsource(original))
        if source.count(self.old) != 1:
            raise StaleMutant(f"{self.path} has {source.count(self.old)} times {self.old!r}, expected once")
        made: dict[str, Any] = {}
        exec(compile(source.replace(self.old, self.new), f"<mutant of {self.path}>", "exec"), module.__dict__, made)
        (changed,) = made.values()
        return changed


def _replace_everywhere(original: Callable[..., Any], changed: Callable[..., Any]) -> None:
    """Modules that imported the function by name hold it, too."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if value is original:
                setattr(module, name, changed)
