"""Where what we run with comes from, and what the security linter was told to overlook."""

import re
import subprocess
import sys
import tomllib
from email.message import Message
from importlib import util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("merkle", "node", "serving", "bootnode", "gateway", "cluster", "scripts")


@pytest.fixture(scope="module")
def licences() -> ModuleType:
    spec = util.spec_from_file_location("licences", ROOT / "scripts" / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_dependency_is_listed_with_a_licence_that_may_be_used(licences: ModuleType) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "licences.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    listed = {name for name, _, needed in licences.locked(licences.LOCK.read_text()) if "psephos" in needed}
    assert listed == set(declared)
    text = licences.LOCK.read_text()
    assert len(licences.locked(text)) == len(re.findall(r"^\S+==", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("said", "expected"),
    [("MIT OR GPL-3.0", None), ("", None), ("All rights reserved", None), ("BSD License", "BSD-3-Clause")],
)
def test_a_licence_that_nobody_has_read_is_refused(
    licences: ModuleType, monkeypatch: pytest.MonkeyPatch, said: str, expected: str | None
) -> None:
    metadata = Message()
    metadata["License"] = said
    monkeypatch.setattr(licences, "distribution", lambda _name: SimpleNamespace(version="1", metadata=metadata))
    if expected:
        assert licences.licence_of("thing", "1") == expected
        return
    with pytest.raises(licences.LicenceError, match="thing 1 is under"):
        licences.licence_of("thing", "1")


def test_every_locked_package_is_pinned_by_hash() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        blocks = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / name).read_text())
        packages = [block for block in blocks if re.match(r"[A-Za-z0-9._-]+==", block)]
        assert len(packages) > 30
        assert not [block.split("\n")[0] for block in packages if "--hash=sha256:" not in block]


def test_each_exception_of_the_security_linter_says_why() -> None:
    lines = [
        (path, line)
        for room in PRODUCT
        for path in (ROOT / room).rglob("*.py")
        for line in path.read_text().splitlines()
        if "nosec" in line
    ]
    assert lines
    for path, line in lines:
        assert re.search(r"# nosec B\d{3}(, B\d{3})* # \w", line), f"{path}: {line.strip()}"
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["bandit"]
    assert set(configuration) == {"assert_used"}, "no test is skipped everywhere"
    for pattern in configuration["assert_used"]["skips"]:
        found = list(ROOT.glob(pattern.removeprefix("*")))
        assert any("assert " in path.read_text() for path in found), f"{pattern} excuses nothing"
