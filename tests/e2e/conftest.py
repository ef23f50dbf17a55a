"""Networks for the tests that talk to real processes."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import ENVIRONMENT, Cluster, command


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A network of its own, not started yet."""
    one = Cluster(tmp_path / "data")
    yield one
    one.destroy()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One started network for tests that only use it."""
    one = Cluster(tmp_path_factory.mktemp("shared") / "data")
    one.up()
    yield one
    one.destroy()


@pytest.fixture
def foreground(cluster: Cluster) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `psephos up` in the foreground, its output in a file `up.txt` beside the data directory."""
    started: list[subprocess.Popen[str]] = []

    def start(*extra: str) -> subprocess.Popen[str]:
        with (cluster.data_dir.parent / "up.txt").open("w") as output:
            process = subprocess.Popen(
                command(*cluster.up_arguments, *extra),
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
