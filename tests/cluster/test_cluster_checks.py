"""`psephos verify`, `psephos merkle` and `psephos monitor` as a person runs them: words, files and exit codes."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.cli import main
from cluster.treefile import TreeFile, TreeFileError, write_tree
from gateway.receipt import encode, head_document, receipt_document
from gateway.receipt_check import leaf_data
from gateway.records import Anchor
from merkle import log, trees
from merkle.keccak import keccak256
from merkle.leaves import leaf_of
from node.chain.genesis import genesis_document
from tests.gateway.receipt_world import World, make_anchor, make_ballot

OLD = Path(__file__).resolve().parents[1] / "data" / "receipts" / "changing-validators"
GENESIS = ("--genesis", str(OLD / "genesis.json"))
SAFE = trees.algorithm(trees.RFC6962)


class TestVerify:
    @pytest.mark.parametrize("name", ["an-anchor", "an-old-ballot-later", "without-the-choice", "log-head"])
    def test_what_holds(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["verify", str(OLD / f"{name}.json"), *GENESIS]) == 0
        out = capsys.readouterr().out
        assert "It holds." in out
        assert "--checkpoint" in out
        assert ("not what it says" in out) == (name == "without-the-choice")
        assert not re.search(r"[0-9a-f]{64}", out) or name == "an-anchor"  # words, no hashes

    def test_explain_shows_every_hash(self, capsys: pytest.CaptureFixture[str]) -> None:
        path = OLD / "an-old-ballot-later.json"
        assert main(["verify", str(path), *GENESIS, "--explain"]) == 0
        out = capsys.readouterr().out
        document = json.loads(path.read_text())
        for part in (document["genesisHash"], document["log"]["root"], document["log"]["leafHash"]):
            assert part in out
        for part in (*document["log"]["inclusionProof"], *document["validatorSets"][2]["validators"]):
            assert part in out

    def test_a_lie(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        document = json.loads((OLD / "an-old-ballot-later.json").read_text())
        document["record"]["content"] = "0x00"
        (tmp_path / "lie.json").write_text(json.dumps(document))
        assert main(["verify", str(tmp_path / "lie.json"), *GENESIS]) == 1
        out = capsys.readouterr().out
        assert "✗ It does not hold. the record" in out
        assert "It holds" not in out

    def test_networks_are_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        path = OLD / "an-anchor.json"
        genesis_hash = json.loads(path.read_text())["genesisHash"]
        assert main(["verify", str(path), "--genesis-hash", genesis_hash]) == 0
        assert main(["verify", str(path), "--genesis-hash", "11" * 32]) == 1
        assert main(["verify", str(path)]) == 1
        assert "which network?" in capsys.readouterr().err

    def test_checkpoints(self) -> None:
        path = OLD / "an-old-ballot-later.json"
        sets = json.loads(path.read_text())["validatorSets"]
        block_hash = keccak256(bytes.fromhex(sets[1]["header"][2:])).hex()
        assert main(["verify", str(path), *GENESIS, "--checkpoint", block_hash]) == 0
        assert main(["verify", str(path), *GENESIS, "--checkpoint", "11" * 32]) == 1

    @pytest.mark.parametrize(
        "arguments",
        [
            ("nowhere.json", *GENESIS),
            (str(OLD / "an-anchor.json"), "--genesis", str(OLD / "an-anchor.json")),
            (str(OLD / "an-anchor.json"), "--genesis-hash", "xyz"),
            (str(OLD / "an-anchor.json"), *GENESIS, "--checkpoint", "1"),
            (str(OLD / "genesis.json"), *GENESIS),
            (str(OLD / "README.md"), *GENESIS),
        ],
    )
    def test_what_cannot_be_checked_is_no_success(self, arguments: tuple[str, ...]) -> None:
        assert main(["verify", *arguments]) == 1


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    path = tmp_path / "products.txt"
    path.write_text("".join(f"product {number}\n" for number in range(11)))
    return path


class TestMerkle:
    def test_from_products_to_a_products_receipt(
        self, batch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["merkle", "build", str(batch), "--proofs", str(tmp_path / "proofs.jsonl")]) == 0
        root = capsys.readouterr().out.strip()
        leaves = [f"product {number}" for number in range(11)]
        assert root == log.root([log.leaf_hash(leaf.encode()) for leaf in leaves]).hex()
        world = World()
        world.anchor(make_anchor(1))
        world.anchor(Anchor(bytes(32), bytes.fromhex(root), 11, SAFE.name))
        anchor = tmp_path / "anchor.json"
        anchor.write_bytes(
            encode(receipt_document(world.receipt(Anchor(bytes(32), bytes.fromhex(root), 11, SAFE.name), 1)))
        )
        genesis = tmp_path / "genesis.json"
        genesis.write_text(json.dumps(genesis_document(world.genesis)))
        lines = (tmp_path / "proofs.jsonl").read_text().splitlines()
        assert len(lines) == 11
        for number, leaf in enumerate(leaves):
            proof = tmp_path / "proof.json"
            capsys.readouterr()
            assert main(["merkle", "prove", str(batch) + ".tree", "--leaf", leaf]) == 0
            proof.write_text(capsys.readouterr().out)
            assert json.loads(proof.read_text()) | {"leaf": None} == json.loads(lines[number])
            assert main(["merkle", "verify", str(proof), "--leaf", leaf, "--root", root]) == 0
            assert main(["verify", str(anchor), "--genesis", str(genesis), "--proof", str(proof)]) == 0
        assert main(["merkle", "verify", str(proof), "--leaf", "another"]) == 1
        assert main(["merkle", "verify", str(proof), "--root", "00" * 32]) == 1
        capsys.readouterr()
        assert main(["merkle", "prove", str(batch) + ".tree", "--index", "3", "--anchor", str(anchor)]) == 0
        product = tmp_path / "product.json"
        product.write_text(capsys.readouterr().out)
        assert main(["verify", str(product), "--genesis", str(genesis)]) == 0
        assert "holds the root of the product's batch" in capsys.readouterr().out
        assert main(["verify", str(product), "--genesis-hash", "11" * 32]) == 1

    @pytest.mark.parametrize(
        ("name", "text", "arguments", "leaves"),
        [
            ("a.txt", "one\r\ntwo", (), ["one", "two"]),
            ("a.jsonl", '{"b":1,"a":2}\n"x"\n[1]\n', (), [{"a": 2, "b": 1}, "x", [1]]),
            ("a.json", '[{"b":1,"a":2},\n "x", 3]', (), [{"a": 2, "b": 1}, "x", 3]),
            ("a.csv", '\ufeffid,name\n1,ä\n2,"b\nb"\n', (), [{"id": "1", "name": "ä"}, {"id": "2", "name": "b\nb"}]),
            ("a.csv", "id,name\n1,ä\n2,b\n", ("--column", "name"), ["ä", "b"]),
            ("a.csv", "id\n", ("--format", "lines"), ["id"]),
        ],
    )
    def test_formats(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        name: str,
        text: str,
        arguments: tuple[str, ...],
        leaves: list[Any],
    ) -> None:
        (tmp_path / name).write_bytes(text.encode())
        assert main(["merkle", "build", str(tmp_path / name), *arguments]) == 0
        assert capsys.readouterr().out.strip() == trees.root(SAFE, [SAFE.leaf_hash(leaf_of(v)) for v in leaves]).hex()

    @pytest.mark.parametrize(
        ("name", "text", "arguments", "words"),
        [
            ("a.txt", "", (), "holds no leaves"),
            ("a.txt", "one\n\ntwo\n", (), "a.txt:2: an empty line"),
            ("a.jsonl", "1\n{\n", (), "a.jsonl:2"),
            ("a.json", "{}", (), "expected an array"),
            ("a.csv", "id,name\n1\n", (), "a.csv:2: the row"),
            ("a.csv", "id,name\n1,2,3\n", (), "a.csv:2: the row"),
            ("a.csv", "id\n1\n", ("--column", "name"), "no column 'name'"),
            ("a.txt", "id\n", ("--column", "name"), "goes with CSV"),
            ("a.txt", "id\n", ("--algorithm", "sha256-hex-pipe"), "only checks old roots"),
        ],
    )
    def test_what_is_wrong_is_named(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        name: str,
        text: str,
        arguments: tuple[str, ...],
        words: str,
    ) -> None:
        (tmp_path / name).write_text(text)
        assert main(["merkle", "build", str(tmp_path / name), *arguments]) == 1
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.out == ""
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tree"] == []

    @pytest.mark.parametrize("name", [trees.SORTED_PAIRS, trees.HEX_PIPE])
    def test_old_roots_of_unsafe_trees(self, batch: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
        how = trees.algorithm(name)
        root = trees.root(how, [how.leaf_hash(f"product {number}".encode()) for number in range(11)]).hex()
        assert main(["merkle", "build", str(batch), "--algorithm", name, "--expect-root", root]) == 0
        captured = capsys.readouterr()
        assert captured.out.strip() == root
        assert "unsafe" in captured.err
        assert main(["merkle", "build", str(batch), "--algorithm", name, "--expect-root", "00" * 32]) == 1
        assert not Path(str(batch) + ".tree").exists()

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(size=st.integers(0, 300), data=st.data())
    def test_a_tree_in_a_file_is_the_tree(self, tmp_path: Path, size: int, data: st.DataObject) -> None:
        hashes = [log.leaf_hash(number.to_bytes(4, "big")) for number in range(size)]
        path = tmp_path / "any.tree"
        assert write_tree(path, iter(hashes)) == (size, log.root(hashes))
        with TreeFile(path) as tree:
            assert list(tree.leaf_hashes()) == hashes
            if size:
                index = data.draw(st.integers(0, size - 1))
                steps = trees.prove(SAFE, hashes, index)
                assert tree.prove(index) == [step.hash for step in steps]
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] if size else b"")
        with pytest.raises(TreeFileError):
            TreeFile(path)


class Site:
    """A gateway's log as the monitor sees it: documents by path."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, bytes] = {}

    def show(self, world: World, election: int, old_size: int | None = None) -> None:
        head = world.head(election)
        self.answers = {f"/log/{election}/head": encode(head_document(head))}
        if old_size is not None:
            hashes = [log.leaf_hash(leaf) for leaf in leaves_of(world, election)]
            proof = _consistency(hashes, old_size, head.size)
            path = f"/log/{election}/proof/consistency?from={old_size}&to={head.size}"
            self.answers[path] = json.dumps({"proof": ["0x" + part.hex() for part in proof]}).encode()


def leaves_of(world: World, election: int) -> list[bytes]:
    return [leaf_data(world.domain, make_ballot(election, n)) for n in range(world.head(election).size)]


def _consistency(hashes: list[bytes], old: int, new: int) -> list[bytes]:
    return log.consistency_proof(old, new, lambda level, index: log.root(hashes[index << level : (index + 1) << level]))


@contextmanager
def serving() -> Iterator[Site]:
    site = Site("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = site.answers.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as one:
        yield one


class Watch:
    """A monitor with a memory of its own."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.state = folder / "memory.json"
        self.site = site
        self.genesis = folder / "genesis.json"
        self.genesis.write_text(json.dumps(genesis_document(World().genesis)))

    def look(self, *more: str) -> int:
        trust = more or ("--genesis", str(self.genesis))
        return main(["monitor", f"{self.site.url}/log/1", "--state", str(self.state), *trust])


@pytest.fixture
def watch(tmp_path: Path, site: Site) -> Watch:
    return Watch(tmp_path, site)


def grown(*sizes: int, first: int = 0) -> World:
    world = World()
    world.create(1)
    begin = 0
    for size in sizes:
        world.cast(*(make_ballot(1, number + (first if begin else 0)) for number in range(begin, size)))
        begin = size
    return world


class TestMonitor:
    def test_an_honest_log(self, watch: Watch, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        site.show(grown(), 1)
        assert watch.look() == 0
        site.show(grown(3), 1)
        assert watch.look() == 0
        site.show(grown(3, 8), 1, 3)
        assert watch.look() == 0
        assert watch.look() == 0
        out = capsys.readouterr().out
        assert [line.split(" after")[0] for line in out.splitlines()] == [
            "✓ first look: 0 entries",
            "✓ grew from 0 to 3 entries",
            "✓ grew from 3 to 8 entries",
            "✓ grew from 8 to 8 entries",
        ]

    def test_a_rewritten_log(self, watch: Watch, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
        """Sealed by a quorum and all: the memory of the monitor is what finds it out."""
        site.show(grown(3), 1)
        assert watch.look() == 0
        memory = watch.state.read_bytes()
        other = World()
        other.create(1)
        other.cast(*(make_ballot(1, number, content=b"\x00") for number in range(3)))
        other.block()
        site.show(other, 1)
        assert watch.look() == 1
        assert "is not honest" in capsys.readouterr().err
        other.cast(make_ballot(1, 4))
        site.show(other, 1, 3)
        assert watch.look() == 1
        assert watch.state.read_bytes() == memory

    def test_a_shorter_log(self, watch: Watch, site: Site) -> None:
        site.show(grown(3), 1)
        assert watch.look() == 0
        other = grown(2)
        for _ in range(3):
            other.block()
        site.show(other, 1)
        assert watch.look() == 1

    def test_two_blocks_of_one_height(self, watch: Watch, site: Site) -> None:
        site.show(grown(3), 1)
        assert watch.look() == 0
        other = World()
        other.block()
        other.create(1)
        site.show(other, 1)
        assert watch.look() == 1

    def test_one_that_is_behind_is_not_a_liar(self, watch: Watch, site: Site) -> None:
        site.show(grown(3, 5), 1)
        assert watch.look() == 0
        site.show(grown(3), 1)
        assert watch.look() == 2

    def test_heads_that_do_not_hold(self, watch: Watch, site: Site) -> None:
        world = grown(3)
        site.show(world, 1)
        honest = json.loads(site.answers["/log/1/head"])
        for change in (
            {"log": honest["log"] | {"size": 4}},
            {
                "block": honest["block"]
                | {"certificate": {"round": 0, "seals": honest["block"]["certificate"]["seals"][:1]}}
            },
            {"chainId": 5},
        ):
            site.answers["/log/1/head"] = encode(honest | change)
            assert watch.look() == 1
        world.create(2)
        site.answers["/log/1/head"] = encode(head_document(world.head(2)))
        assert watch.look() == 1
        site.answers["/log/1/head"] = encode(receipt_document(world.receipt(make_ballot(1, 1), 1)))
        assert watch.look() == 1

    def test_no_answer_is_no_verdict(self, watch: Watch, site: Site) -> None:
        assert watch.look() == 2
        site.show(grown(3), 1)
        assert watch.look() == 0
        site.show(grown(3, 8), 1)  # and no consistency proof
        assert watch.look() == 2
        site.url = "http://127.0.0.1:1"
        assert watch.look() == 2

    def test_a_consistency_proof_that_is_none(self, watch: Watch, site: Site) -> None:
        site.show(grown(3), 1)
        assert watch.look() == 0
        site.show(grown(3, 8), 1, 3)
        (path,) = (path for path in site.answers if "consistency" in path)
        for proof in (b"{}", b"[]", b'{"proof": ["0x00"]}', b'{"proof": [5]}', b'{"proof": []}'):
            site.answers[path] = proof
            assert watch.look() == 1

    def test_the_network_is_remembered_and_a_damaged_memory_is_no_excuse(self, watch: Watch, site: Site) -> None:
        site.show(grown(3), 1)
        assert main(["monitor", f"{site.url}/log/1", "--state", str(watch.state)]) == 1  # which network?
        assert watch.look() == 0
        assert main(["monitor", f"{site.url}/log/1", "--state", str(watch.state)]) == 0
        assert watch.look("--genesis-hash", "11" * 32) == 1
        watch.state.write_text("{")
        assert watch.look() == 1
