"""Starts a network of real processes on free ports, runs the JavaScript clients against it, and stops it again."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.e2e.harness import Cluster

FOLDER = Path(__file__).resolve().parent
NODE_MAJOR_MIN = 20
INSTALL_WITHIN_S = 600
TESTS_WITHIN_S = 900


def say(text: str) -> None:
    """A line for whoever runs this."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def node_major() -> int:
    """The major version of the Node.js that is installed; 0 when there is none."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return 0
    shown = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    return int(shown.lstrip("v").partition(".")[0])


def install() -> None:
    """Install exactly what the lock file names, once; packages' own scripts are not run."""
    lock, stamp = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".installed-lock.json"
    if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
        return
    subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=FOLDER, check=True, timeout=INSTALL_WITHIN_S)
    shutil.copyfile(lock, stamp)


def main() -> int:
    """The exit code of the clients' tests."""
    major = node_major()
    if major < NODE_MAJOR_MIN:
        found = f"version {major}" if major else "none"
        say(f"test-clients: NOT RUN: they need Node.js {NODE_MAJOR_MIN} or newer with npm, and found {found}")
        return 0
    install()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder) / "data")
        try:
            cluster.up()
            node = cluster.data_dir / "validator-1"
            environment = {
                **os.environ,
                "PSEPHOS_RPC_URL": cluster.rpc_url(1),
                "PSEPHOS_OPERATORS_URL": (node / "operators.url").read_text().strip(),
                "PSEPHOS_JWT_SECRET": (node / "jwt.hex").read_text().strip(),
                "PSEPHOS_TRANSACTIONS_MIN": "20",
            }
            command = ["npm", "test", "--silent", *sys.argv[1:]]
            done = subprocess.run(command, cwd=FOLDER, env=environment, check=False, timeout=TESTS_WITHIN_S)
            if done.returncode:
                say(cluster.logs())
            return done.returncode
        finally:
            cluster.destroy()


if __name__ == "__main__":
    sys.exit(main())
