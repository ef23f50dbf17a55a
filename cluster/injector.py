"""Does to the processes of a running network what a plan of faults says, and undoes all of it at the end."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cluster.faults import Fault
from cluster.network import ClusterError, Network
from cluster.processes import ProcessTable, send

START_TRIES_S = 10.0
STOP_GRACE_S = 15.0


@dataclass(frozen=True, slots=True)
class Done:
    """A fault as it happened; seconds as in the plan."""

    fault: Fault
    began_s: float
    ended_s: float


class Injector:
    """One run of a plan. `now_s` is the clock that the plan counts in; `tell` gets a line for each fault."""

    def __init__(
        self, network: Network, table: ProcessTable, now_s: Callable[[], float], tell: Callable[[str], None]
    ) -> None:
        self._network, self._table = network, table
        self._now_s, self._tell = now_s, tell
        # One thread: the table's bookkeeping is nobody else's while it waits for a process to be gone.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inject")
        self._holds: dict[str, int] = {}
        self.done: list[Done] = []
        self.deaths: list[str] = []  # processes that ended although nobody had done anything to them

    async def run(self, plan: Sequence[Fault]) -> None:
        """Carry out the plan; returns when its last fault is undone."""
        async with asyncio.TaskGroup() as tasks:
            for fault in plan:
                tasks.create_task(self._one(fault))

    @contextlib.contextmanager
    def holding(self, names: Sequence[str]) -> Iterator[None]:
        """While the block runs, what becomes of these processes is its doing, and no death to report."""
        for name in names:
            self._holds[name] = self._holds.get(name, 0) + 1
        try:
            yield
        finally:
            for name in names:
                self._holds[name] -= 1

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s - self._now_s())
        began_s = self._now_s()
        with self.holding(fault.targets):
            self._tell(f"{began_s:6.1f} s  {fault.kind}: {', '.join(fault.targets)}, for {fault.lasts_s:.1f} s")
            await asyncio.gather(*(self._do(fault, name) for name in fault.targets))
            await asyncio.sleep(began_s + fault.lasts_s - self._now_s())
            await asyncio.gather(*(self._undo(fault, name) for name in fault.targets))
        self.done.append(Done(fault, began_s, self._now_s()))

    async def _do(self, fault: Fault, name: str) -> None:
        if fault.action == "stop":
            await self._call(lambda: self._table.stop([name], grace_s=STOP_GRACE_S))
            return
        number = signal.SIGKILL if fault.action == "kill" else signal.SIGSTOP
        await self._call(lambda: self._signal(name, number))

    def _signal(self, name: str, number: signal.Signals) -> None:
        with contextlib.suppress(ClusterError):  # it ended by itself, which `watch` reports
            identity = self._table.signal(name, number)
            if number == signal.SIGKILL:
                self._table.wait_gone([identity])

    async def _undo(self, fault: Fault, name: str) -> None:
        if fault.action == "pause":
            await self._call(lambda: self._signal(name, signal.SIGCONT))
        else:
            await self._call(lambda: self._start(name))

    def _start(self, name: str) -> None:
        deadline = time.monotonic() + START_TRIES_S
        while self._table.alive(name) is None:
            try:
                self._table.start(self._network.named(name))
            except ClusterError:  # its port is held by a connection that the kernel still ends
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    async def _call(self, function: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def watch(self, interval_s: float) -> None:
        """Note processes that end by themselves, and start them again, until cancelled."""
        while True:
            for process in self._network:
                if not self._holds.get(process.name):
                    await self._call(lambda name=process.name: self._look(name))  # type: ignore[misc]
            await asyncio.sleep(interval_s)

    def _look(self, name: str) -> None:
        if not self._holds.get(name) and self._table.state(name) == "stopped":
            self.deaths.append(f"{name} {self._table.exit_reason(name)}")
            self._tell(f"{self._now_s():6.1f} s  {self.deaths[-1]}")
            self._start(name)

    async def heal(self) -> None:
        """Wake what is paused, start what is down."""
        for process in self._network:
            await self._call(lambda name=process.name: self._signal(name, signal.SIGCONT))  # type: ignore[misc]
            await self._call(lambda name=process.name: self._start(name))  # type: ignore[misc]

    async def power_off(self) -> None:
        """SIGKILL everything at once; `watch` must have ended."""
        names = [process.name for process in self._network]
        identities = [identity for name in names if (identity := self._table.alive(name))]
        for identity in identities:
            send(identity, signal.SIGKILL)
        await self._call(lambda: self._table.wait_gone(identities))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
