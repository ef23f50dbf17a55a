"""Drives the coroutines of real code without an event loop: only a simulated port can pause one, or never resume it."""

from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeAlias

Resume: TypeAlias = Callable[[BaseException | None], None]


class Suspension:
    """What a simulated port awaits. `begin` starts the work and is given what to call once it is done or has failed."""

    def __init__(self, begin: Callable[[Resume], None]) -> None:
        self.begin = begin

    def __await__(self) -> Generator["Suspension", None, None]:
        yield self


class Task:
    """One coroutine on its way. `on_done` gets its result, or what it raised."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], on_done: Callable[[Any, BaseException | None], None]
    ) -> None:
        self._coroutine = coroutine
        self._on_done = on_done
        self._dead = False

    def start(self) -> None:
        """Run to the first suspension."""
        self._go_on(None)

    def kill(self) -> None:
        """Drop it where it stands, as the end of its process would."""
        self._dead = True
        self._coroutine.close()

    def _go_on(self, error: BaseException | None) -> None:
        if self._dead:
            return
        try:
            suspension = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration as stop:
            self._on_done(stop.value, None)
        except Exception as failure:
            self._on_done(None, failure)
        else:
            suspension.begin(self._go_on)
