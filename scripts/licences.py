"""Writes docs/LICENCES.md: the licence of each locked package that Psephos runs with, as it is installed here.

`licences.py` writes it, `licences.py --check` fails when it is out of date. A licence that is not known to be
compatible is an error in both, so that nobody adds one without having read it.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
DOCUMENT = ROOT / "docs" / "LICENCES.md"

# What packages say where they do not speak SPDX, and what they mean.
SAID = {
    "Apache 2.0": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "BSD, Public Domain": "BSD-2-Clause AND LicenseRef-Public-Domain",
    "MIT License": "MIT",
    "PSFL (Keccak: CC0 1.0 Universal)": "PSF-2.0 AND CC0-1.0",
}
# All may be used, unchanged, by a program under the Apache License 2.0. MPL-2.0 asks that changes to *its* files be
# published; there are none. Not here, because each asks more of the whole program: GPL, AGPL, SSPL, "non-commercial".
COMPATIBLE = {
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "LicenseRef-Public-Domain",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "PSF-2.0",
}
HEAD = """\
# Licences of dependencies

Psephos is under the Apache License 2.0. What it runs with is below: every package of `requirements.lock`, with the
licence that the package itself names. All may be used so; `scripts/licences.py`, which writes this file, refuses any
that it does not know. Tools of development (`requirements-dev.lock`) are not part of what is run or shipped, and the
composed profile `observability` starts Prometheus (Apache-2.0) and Grafana (AGPL-3.0-only) as programs of their own.

Wheels bring compiled code along: plyvel LevelDB (BSD-3-Clause) and Snappy (BSD-3-Clause), coincurve libsecp256k1 (MIT),
cryptography OpenSSL (Apache-2.0), uvloop libuv (MIT), aiohttp llhttp (MIT).

| package | version | licence | needed by |
|---|---|---|---|
"""


class LicenceError(Exception):
    """A package whose licence is missing or not known to be compatible; the message says which."""


def locked(text: str) -> list[tuple[str, str, str]]:
    """(name, version, who needs it) of each package in a lock file that pip-compile or uv wrote."""
    found = []
    for block in re.split(r"\n(?=\S)", text):
        head = re.match(r"([A-Za-z0-9._-]+)==([^\s;\\]+)", block)
        if head:
            needed = re.findall(r"#\s+(?:via )?([A-Za-z0-9._-]+)(?: \(pyproject\.toml\))?$", block, re.MULTILINE)
            found.append((head[1], head[2], ", ".join(name for name in needed if name != "via")))
    return found


def licence_of(name: str, version: str) -> str:
    """The SPDX expression of an installed package. Raises LicenceError."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise LicenceError(f"{name} is locked and not installed here: run `make environment-dev`") from None
    if found.version != version:
        raise LicenceError(f"{name} {version} is locked and {found.version} installed: run `make environment-dev`")
    metadata = found.metadata
    classifiers = [
        text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier") or () if text.startswith("License ::")
    ]
    fields = (metadata.get_all(field) for field in ("License-Expression", "License"))
    said = next((str(field[0]) for field in fields if field), "") or " AND ".join(classifiers)
    expression = SAID.get(said, said)
    parts = set(re.findall(r"[A-Za-z0-9.-]+", expression)) - {"AND", "OR"}
    if not parts or not parts <= COMPATIBLE:
        raise LicenceError(f"{name} {version} is under {said!r}, which is not known to be compatible: read it first")
    return expression


def document() -> str:
    """The text of docs/LICENCES.md. Raises LicenceError."""
    rows = [
        f"| {name} | {version} | {licence_of(name, version)} | {needed} |\n"
        for name, version, needed in locked(LOCK.read_text())
    ]
    return HEAD + "".join(rows)


def main(arguments: list[str]) -> int:
    """Write, or check with --check; the exit code."""
    try:
        text = document()
    except LicenceError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    if arguments != ["--check"]:
        DOCUMENT.write_text(text)
        return 0
    if not DOCUMENT.exists() or DOCUMENT.read_text() != text:
        print(f"{DOCUMENT} is out of date: run scripts/licences.py", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
