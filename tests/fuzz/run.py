"""`make fuzz`: libFuzzer, by way of atheris, throws bytes at each target in turn, guided by what the code covers.

What crashes is left in the folder and shown with the command that plays it again; put it into tests/data/fuzz/TARGET/
with the mending, where the test suite plays it for ever.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

ROOT = Path(__file__).resolve().parents[2]
FOUND = ROOT / "tests" / "data" / "fuzz"
NAMES = (
    "frames", "handshake", "identity", "messages", "payloads", "rlp", "transactions", "records", "json", "guard",
    "jsonrpc", "parameters",
)  # fmt: skip
console = Console(highlight=False, markup=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> int:
    """Fuzz; 1 when something crashed."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="for each target (default: 10)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".fuzz", help="what covers new code is kept here")
    parser.add_argument("--target", choices=NAMES, action="append", help="only this one; may be repeated")
    parser.add_argument("--play", type=Path, metavar="FILE", help="give these bytes to --target once")
    parser.add_argument("--inside", help=argparse.SUPPRESS)  # the process in which libFuzzer runs
    options = parser.parse_args(arguments)
    names = tuple(options.target or NAMES)
    if options.inside:
        return _fuzz_inside(options.inside, options.folder, options.seconds)
    if options.play:
        _targets()[names[0]].check(options.play.read_bytes())
        console.print(f"{names[0]}: {options.play} passes")
        return 0
    crashed = [name for name in names if not _fuzz(name, options.folder, options.seconds)]
    if crashed:
        console.print(f"crashed: {', '.join(crashed)}; the bytes are in {options.folder}, named after their target")
        console.print("play them again: .venv/bin/python -m tests.fuzz.run --target TARGET --play FILE")
    return 1 if crashed else 0


def _fuzz(name: str, folder: Path, seconds: int) -> bool:
    """One target in a process of its own, since libFuzzer ends the one in which it runs."""
    began = time.monotonic()
    options = ["--inside", name, "--folder", str(folder), "--seconds", str(seconds)]
    command = [sys.executable, "-m", "tests.fuzz.run", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    console.print(f"{name:12} {time.monotonic() - began:6.0f} s  {last[-1] if last else 'no end'}")
    if done.returncode != 0 or not last:
        console.print(done.stdout[-2_000:], done.stderr[-6_000:], sep="\n")
        return False
    return True


def _targets() -> "dict[str, Target]":
    """Imported late: what is imported under atheris's eyes is instrumented."""
    from tests.fuzz.rpc_targets import RPC_TARGETS
    from tests.fuzz.targets import TARGETS

    return TARGETS | RPC_TARGETS


def _fuzz_inside(name: str, folder: Path, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["merkle", "node", "bootnode", "gateway"]):
        target = _targets()[name]
    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for position, seed in enumerate(target.seeds()):
        (corpus / f"seed-{position}").write_bytes(seed)
    limits = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=8192"]
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={folder}/{name}-", *limits], target.check)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
