"""`psephos status`: the live table's numbers, and what it prints where no terminal is."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from cluster.cli import main
from cluster.creation import create
from cluster.network import Ports, local_network
from cluster.probe import Health
from cluster.status import Pace, live_table


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A network that was made, and of which nothing runs."""
    create(tmp_path / "d", local_network(3, Ports(), chain_id=7770, dev=True, block_interval_ms=100))
    return tmp_path / "d"


def row(name: str, **values: object) -> dict[str, object]:
    keys = ("level", "height", "round", "peers", "mempool", "ballots", "anchors", "pid")
    return dict.fromkeys(keys) | {"name": name, "state": "running", "ready": True, "health": "ready"} | values


def text_of(rows: list[dict[str, object]], pace: Pace) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=140, no_color=True).print(live_table(rows, pace))
    return out.getvalue().splitlines()


def test_pace_is_growth_a_second_and_unknown_at_first() -> None:
    pace = Pace()
    pace.note({"validator-1": Health(height=10, ballots=100), "gateway": Health()}, 50.0)
    assert pace.per_s("validator-1", "height") is None
    pace.note({"validator-1": Health(height=14, ballots=1100), "validator-2": Health(height=9)}, 52.0)
    assert pace.per_s("validator-1", "height") == 2.0
    assert pace.per_s("validator-1", "ballots") == 500.0
    assert pace.per_s("validator-2", "height") is None
    assert pace.per_s("gateway", "height") is None


def test_the_live_table_shows_who_lags_and_who_is_gone() -> None:
    pace = Pace()
    pace.note({"validator-1": Health(height=10)}, 0.0)
    pace.note({"validator-1": Health(height=30)}, 2.0)
    lines = text_of(
        [
            row("validator-1", height=30, round=0, peers=2, mempool=4, ballots=7, anchors=1, pid=11),
            row("validator-2", height=21, pid=12),
            row("validator-3", state="stopped", health="stopped", ready=False),
            row("gateway", level=3, pid=13),
        ],
        pace,
    )
    headings = "name health height behind blocks/s round peers mempool ballots ballots/s anchors pid"
    assert lines[0].split() == headings.split()
    assert lines[1].split() == ["validator-1", "ready", "30", "0", "10.0", "0", "2", "4", "7", "–", "1", "11"]
    assert lines[2].split()[:4] == ["validator-2", "ready", "21", "9"]
    assert lines[3].split()[:3] == ["validator-3", "stopped", "–"]
    assert "ready, level 3" in lines[4]


def test_without_a_terminal_it_prints_once(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--data-dir", str(data_dir)]) == 0
    assert capsys.readouterr().out.count("stopped") == 5
    assert main(["status", "--data-dir", str(data_dir), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [process["state"] for process in document["processes"]] == ["stopped"] * 5
    assert {process["metrics"] for process in document["processes"]} == {None}
    assert main(["status", "--data-dir", str(data_dir), "--interval-s", "0"]) == 1
    assert "--interval-s 0: expected more than 0" in capsys.readouterr().err


def test_in_a_terminal_it_looks_again_until_it_is_interrupted(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=140)
    monkeypatch.setattr("cluster.view.Console", lambda **_: terminal)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("cluster.status.time.sleep", pause)
    assert main(["status", "--data-dir", str(data_dir), "--interval-s", "0.5"]) == 0
    assert len(pauses) == 3
    assert all(0 <= seconds <= 0.5 for seconds in pauses)
    assert "Ctrl-C to leave" in out.getvalue()
    assert main(["status", "--data-dir", str(data_dir), "--once"]) == 0
    assert len(pauses) == 3


def test_in_a_file_every_cell_is_on_one_line(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert main(["status", "--data-dir", str(data_dir), "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for process in ("validator-1", "validator-3", "gateway"):
        assert sum(f"logs/{process}.log" in line and line.startswith(process) for line in lines) == 1
