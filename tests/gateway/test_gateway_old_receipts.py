"""Receipts that were given out once: they verify for ever, for us and for programs that import nothing of ours."""

import contextlib
import fcntl
import io
import json
import runpy
import shutil
import subprocess
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from gateway.product import check_any, parse_any
from gateway.receipt import InvalidReceipt, Receipt, encode, parse, receipt_document
from gateway.receipt_check import verify_receipt
from node.chain.domain import Domain
from node.chain.genesis import domain_of, parse_genesis
from tests.gateway.test_gateway_receipt import FORGERIES, forged

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "receipts"
NETWORKS = sorted(path.parent for path in DATA.glob("*/genesis.json"))
OLD = [path for folder in NETWORKS for path in sorted(folder.glob("*.json")) if path.name != "genesis.json"]
OLD_RECEIPTS = [path for path in OLD if json.loads(path.read_text())["format"] == "psephos-receipt"]
SEEN_BY_US_ALONE = {"an account of the forger's"}  # a balance means nothing to a receipt; we refuse it all the same

Case = tuple[str, ...]  # arguments of a model: receipt file, genesis hash, checkpoint
Model = Callable[[Case], tuple[bool, str]]  # whether it holds, and what is said

# Every case in one process, which is what takes the time: the model runs anew with each import of another name.
DRIVER = """
import { readFileSync } from 'node:fs'
const cases = JSON.parse(readFileSync(0, 'utf8'))
const print = console.log
const answers = []
for (const [number, arguments_] of cases.entries()) {
  const lines = []
  console.log = (...words) => lines.push(words.join(' '))
  process.argv = ['node', 'verify.mjs', ...arguments_]
  try {
    await import(`./verify.mjs?${number}`)
    answers.push([true, lines.join('\\n')])
  } catch (error) {
    answers.push([false, String(error.message)])
  }
}
print(JSON.stringify(answers))
"""


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@cache
def domain(folder: Path) -> Domain:
    return domain_of(parse_genesis(json.loads((folder / "genesis.json").read_text())))


def test_there_are_old_receipts() -> None:
    assert len(OLD_RECEIPTS) >= 8


@pytest.mark.parametrize("path", OLD, ids=named)
def test_what_was_given_out_still_holds(path: Path) -> None:
    found = parse_any(path.read_bytes())
    assert list(check_any(found, domain(path.parent)))
    if isinstance(found, Receipt):
        assert parse(encode(receipt_document(found))) == found


def genesis_hash(folder: Path) -> str:
    return "0x" + domain(folder).genesis_hash.hex()


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """What both models are asked."""
    folder = tmp_path_factory.mktemp("forged")
    found: dict[str, Case] = {named(path): (str(path), genesis_hash(path.parent)) for path in OLD_RECEIPTS}
    path = DATA / "changing-validators" / "an-old-ballot-later.json"
    receipt = parse(path.read_bytes())
    assert isinstance(receipt, Receipt)
    for name, block in (
        ("own", receipt.head.header.hash),
        ("set", receipt.head.sets[1].header.hash),
        ("no", bytes(32)),
    ):
        found[f"checkpoint {name}"] = (str(path), genesis_hash(path.parent), "0x" + block.hex())
    found["another network"] = (str(path), "0x" + "11" * 32)
    for number, name in enumerate(FORGERIES):
        one, receipt = forged(FORGERIES[name][1])
        file = folder / f"{number}.json"
        file.write_bytes(encode(receipt_document(receipt)))
        found[name] = (str(file), "0x" + one.domain.genesis_hash.hex())
    return found


@pytest.fixture(scope="session")
def javascript(cases: dict[str, Case]) -> Model:
    """docs/verify/javascript, its packages installed if need be."""
    folder = ROOT / "docs" / "verify" / "javascript"
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node.js here")
    with open(folder / "package-lock.json", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers, one installation
        if not (folder / "node_modules" / ".package-lock.json").exists():
            command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
            if installed.returncode:
                pytest.skip(f"npm cannot install the packages: {installed.stderr[-200:]}")
    done = subprocess.run(
        [node, "--input-type=module", "-e", DRIVER],
        input=json.dumps(list(cases.values())),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    answers = dict(zip(cases.values(), json.loads(done.stdout), strict=True))
    return lambda case: answers[case]


@pytest.fixture(scope="session")
def python() -> Model:
    """docs/verify/python."""
    path = ROOT / "docs" / "verify" / "python" / "verify_receipt.py"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that it imports
        main = runpy.run_path(str(path))["main"]

    def model(case: Case) -> tuple[bool, str]:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                main(*case)
        except (SystemExit, Exception) as refusal:
            return False, str(refusal)
        return True, said.getvalue().strip()

    return model


@pytest.fixture(params=["javascript", "python"])
def outsider(request: pytest.FixtureRequest) -> Model:
    model: Model = request.getfixturevalue(request.param)
    return model


@pytest.mark.parametrize("path", OLD_RECEIPTS, ids=named)
def test_outsiders_find_that_it_holds(outsider: Model, cases: dict[str, Case], path: Path) -> None:
    holds, said = outsider(cases[named(path)])
    assert holds, said
    assert said.splitlines()[-1] == "the receipt holds"


def test_outsiders_take_checkpoints(outsider: Model, cases: dict[str, Case]) -> None:
    assert outsider(cases["checkpoint own"])[0]
    assert outsider(cases["checkpoint set"])[0]
    holds, said = outsider(cases["checkpoint no"])
    assert not holds
    assert "checkpoint" in said


def test_outsiders_know_one_network_by_its_block_0(outsider: Model, cases: dict[str, Case]) -> None:
    holds, said = outsider(cases["another network"])
    assert not holds
    assert "another network" in said


@pytest.mark.parametrize("name", sorted(set(FORGERIES) - SEEN_BY_US_ALONE))
def test_outsiders_refuse_forgeries(outsider: Model, cases: dict[str, Case], name: str) -> None:
    one, receipt = forged(FORGERIES[name][1])
    with pytest.raises(InvalidReceipt):
        verify_receipt(receipt, one.domain)
    holds, said = outsider(cases[name])
    assert not holds, said


def test_the_models_import_nothing_of_ours() -> None:
    for path in (ROOT / "docs" / "verify").rglob("verify*"):
        lines = [line for line in path.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert lines
        for line in lines:
            assert not any(room in line.split() for room in ("merkle", "node", "gateway", "cluster", "bootnode"))
        assert len(path.read_text().splitlines()) <= 160
