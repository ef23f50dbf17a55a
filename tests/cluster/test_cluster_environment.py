"""scripts/environment.sh: one clear sentence for every Python that will not do, and no work when nothing changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.processes import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the script looks at, in a folder whose name has a space and a quote."""
    folder = tmp_path / "it's a clone"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "environment.sh", folder / "scripts")
    (folder / "requirements.lock").write_text("")
    (folder / "requirements-dev.lock").write_text("# dev\n")
    return folder


def run(checkout: Path, python: str, kind: str = "runtime") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": python, "PIP_NO_INDEX": "1"}
    script = checkout / "scripts" / "environment.sh"
    return subprocess.run(["sh", script, kind], env=environment, capture_output=True, text=True, check=False)


def fake(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_no_python_at_all(checkout: Path) -> None:
    done = run(checkout, "/nowhere/python3.11")
    assert done.returncode == 1
    assert done.stderr.startswith("psephos: Python 3.11 or 3.12 is needed and was not found: install it")
    assert done.stderr.count("\n") == 1


def test_a_wrong_python_is_named_with_its_version(checkout: Path, tmp_path: Path) -> None:
    python = fake(tmp_path, 'case "$2" in *print*) echo 3.9.2 ;; *) exit 1 ;; esac')
    done = run(checkout, python)
    assert done.returncode == 1
    assert f"was not found ({python} is 3.9.2)" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_python_without_venv_is_told_which_package_has_it(checkout: Path, tmp_path: Path) -> None:
    python = fake(tmp_path, f'case "$2" in *ensurepip*) exit 1 ;; esac; exec "{sys.executable}" "$@"')
    done = run(checkout, python)
    assert done.returncode == 1
    assert f"{python} lacks the venv module" in done.stderr
    assert f"apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in done.stderr
    assert done.stderr.count("\n") == 1


def test_made_once_usable_from_anywhere_and_made_again_when_moved(checkout: Path, tmp_path: Path) -> None:
    (checkout / "cluster").mkdir()
    (checkout / "cluster" / "__init__.py").write_text("")
    (checkout / "cluster" / "__main__.py").write_text("import sys; print('psephos', *sys.argv[1:])")
    (checkout / "requirements.lock").write_text(f"six==1.16.0 --hash=sha256:{'0' * 64}\n")
    done = run(checkout, sys.executable)  # no index is asked: it cannot be had
    assert "making .venv" in done.stdout
    for failed in (done, run(checkout, sys.executable)):  # a half-made environment is not taken for a whole one
        assert failed.returncode == 1
        assert "installing the locked packages failed" in failed.stderr

    (checkout / "requirements.lock").write_text("")
    done = run(checkout, sys.executable)
    assert done.returncode == 0, done.stderr
    assert "making .venv" not in done.stdout
    called = subprocess.run([checkout / ".venv/bin/psephos", "up", "a b"], capture_output=True, text=True, cwd=tmp_path)
    assert called.stdout == "psephos up a b\n", called.stderr

    assert run(checkout, sys.executable).stdout == ""
    assert "making" not in run(checkout, sys.executable, "dev").stdout
    assert run(checkout, sys.executable).stdout == "", "what serves the tests serves the network"

    moved = checkout.rename(tmp_path / "elsewhere")
    assert "making .venv" in run(moved, sys.executable).stdout
    called = subprocess.run([moved / ".venv/bin/psephos", "x"], capture_output=True, text=True, cwd=tmp_path)
    assert called.stdout == "psephos x\n"


def test_a_link_to_the_environment_of_another_tree_is_left_alone(checkout: Path, tmp_path: Path) -> None:
    """It was made for other folders, so that it would be made anew, and what is there deleted for that."""
    theirs = tmp_path / "theirs"
    (theirs / "bin").mkdir(parents=True)
    (checkout / ".venv").symlink_to(theirs)
    done = run(checkout, sys.executable)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is a link to what is no environment" in done.stderr
    python = theirs / "bin" / "python"
    python.symlink_to(sys.executable)
    done = run(checkout, sys.executable)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert python.is_symlink()


def test_an_environment_of_this_tree_that_lies_elsewhere_is_kept_up_to_date(checkout: Path, tmp_path: Path) -> None:
    assert run(checkout, sys.executable).returncode == 0
    elsewhere = (checkout / ".venv").rename(tmp_path / "elsewhere")
    (checkout / ".venv").symlink_to(elsewhere)
    assert run(checkout, sys.executable).stdout == ""
    (checkout / "requirements.lock").write_text(f"six==1.16.0 --hash=sha256:{'0' * 64}\n")
    assert [run(checkout, sys.executable).returncode for _ in range(2)] == [1, 1], "half-made, it is not whole"
    (checkout / "requirements.lock").write_text("# another\n")
    done = run(checkout, sys.executable)
    assert (done.returncode, done.stdout) == (0, "psephos: .venv is ready\n"), done.stderr
    assert (checkout / ".venv").is_symlink()
