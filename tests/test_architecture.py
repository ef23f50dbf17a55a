"""What import-linter cannot see of the rooms: purity beyond imports, sizes, and the node's shell kept apart."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("merkle", "serving", "node", "bootnode", "gateway", "cluster")
FOLDERS = (*PRODUCT, "tests", "bench", "scripts")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MODULES = [path for path in FILES if path.name != "__init__.py" and path.parts[len(ROOT.parts)] in PRODUCT]

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

# Names that reach for the world without an import that import-linter would refuse.
IMPURE_NAMES = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__", "globals", "id"}
IMPURE_ATTRIBUTES = {
    "uuid1",
    "uuid4",
    "urandom",
    "read_text",
    "write_text",
    "read_bytes",
    "write_bytes",
    "import_module",
}
# The JSON ABIs ship inside the package, and reading one always gives the same bytes.
READS_PACKAGE_DATA = {"node/chain/contracts/contract.py"}


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def name_of(path: Path) -> str:
    return shown(path).removesuffix(".py").replace("/", ".")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def configuration() -> dict[str, list[dict[str, list[str]]]]:
    linter: dict[str, list[dict[str, list[str]]]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
        "importlinter"
    ]
    return linter


def pure_sources() -> list[str]:
    """The modules that the import-linter contract calls pure; one list for both."""
    (contract,) = [c for c in configuration()["contracts"] if str(c["name"]).startswith("Pure rooms")]
    return contract["source_modules"]


def is_pure(path: Path) -> bool:
    name = name_of(path)
    return any(name == source or name.startswith(source + ".") for source in pure_sources())


PURE = [path for path in FILES if is_pure(path)]


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PRODUCT, include_external_packages=True, cache_dir=None)


def shells() -> set[str]:
    """The modules of the node's own shell: those directly in `node`, not in one of its rooms."""
    return {f"node.{path.stem}" for path in (ROOT / "node").glob("*.py") if path.stem != "__init__"}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_the_pure_rooms_are_the_ones_of_the_design() -> None:
    assert {"merkle", "node.chain", "node.consensus"} <= set(pure_sources())
    for source in pure_sources():
        path = ROOT / source.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"{source} is listed as pure, and does not exist"
    assert len(PURE) > 20


@pytest.mark.parametrize("path", PURE, ids=shown)
def test_pure_rooms_only_compute(path: Path) -> None:
    """No coroutine, nothing that waits, and no built-in that reads or writes the world."""
    for node in ast.walk(parsed(path)):
        line = f"{shown(path)}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)), f"{line}: async"
        assert not isinstance(node, ast.Global), f"{line}: a global that changes"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_NAMES, f"{line}: {node.func.id}()"
        if isinstance(node, ast.Attribute) and shown(path) not in READS_PACKAGE_DATA:
            assert node.attr not in IMPURE_ATTRIBUTES, f"{line}: .{node.attr}"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_files_and_functions_stay_small(path: Path) -> None:
    """Past these sizes a room is missing."""
    lines = len(path.read_text().splitlines())
    assert lines <= FILE_LINES_MAX, f"{shown(path)} has {lines} lines; at most {FILE_LINES_MAX}"
    for function in functions(parsed(path)):
        assert function.end_lineno is not None
        length = function.end_lineno - function.lineno + 1
        where = f"{shown(path)}:{function.lineno} {function.name}"
        assert length <= FUNCTION_LINES_MAX, f"{where} has {length} lines; at most {FUNCTION_LINES_MAX}"


@pytest.mark.parametrize("path", [path for path in FILES if path.name != "__init__.py"], ids=shown)
def test_each_file_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(parsed(path))
    assert docstring, f"{shown(path)} has no docstring"
    sentence = docstring.split("\n\n")[0]
    assert sentence.endswith((".", "!", "?", ":")), f"{shown(path)}: its docstring does not begin with a sentence"


@pytest.mark.parametrize("package", PRODUCT)
def test_importing_a_package_loads_nothing(package: str) -> None:
    """A pure part of a room must not bring its server along. `merkle` is no shell, and may name its error."""
    for path in (ROOT / package).rglob("__init__.py"):
        if path == ROOT / "merkle" / "__init__.py":
            continue
        statements = [node for node in parsed(path).body if not isinstance(node, ast.Expr)]
        assert not statements, f"{shown(path)} is not empty"


@pytest.mark.parametrize("path", FILES, ids=shown)
def test_nothing_is_left_for_later(path: Path) -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X:")
    for number, line in enumerate(path.read_text().splitlines(), 1):
        assert not any(mark in line for mark in marks), f"{shown(path)}:{number}: {line.strip()}"
    if path in MODULES:  # a test may have a double that must not be called
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Raise) and node.exc is not None:
                assert "NotImplementedError" not in ast.unparse(node.exc), f"{shown(path)}:{node.lineno}: a stub"


@pytest.mark.parametrize(
    "room", ["merkle", "serving", "node.chain", "node.consensus", "node.p2p", "node.rpc", "gateway", "bootnode"]
)
def test_rooms_never_reach_the_nodes_shell(room: str) -> None:
    """Directly or through others. The shell is whatever lies in its folder, so a new module is kept apart, too."""
    # What runs nowhere by itself may be shared: a constant with the version's number.
    assert len(shells()) > 3
    reached = graph().find_upstream_modules(room, as_package=True) & (shells() - {"node.version"})
    chains = {
        module: graph().find_shortest_chain(importer=importer, imported=module)
        for module in sorted(reached)
        for importer in [room, *sorted(graph().find_descendants(room))]
        if graph().find_shortest_chain(importer=importer, imported=module)
    }
    assert not reached, f"{room} reaches {chains}"


def test_the_shared_constant_is_a_leaf() -> None:
    if "node.version" in graph().modules:
        imported = graph().find_modules_directly_imported_by("node.version")
        assert not [module for module in imported if module.split(".")[0] in PRODUCT]


def test_only_the_signing_module_touches_the_curve_and_only_keccak_the_hash() -> None:
    """One place each, so that low-s and the choice of a fast backend cannot be forgotten elsewhere."""
    assert graph().find_modules_that_directly_import("coincurve") == {"node.chain.signing"}
    assert graph().find_modules_that_directly_import("sha3") == {"merkle.keccak"}


def test_test_files_have_names_of_their_own() -> None:
    """Rooms have no packages under `tests`, so that a name that comes twice would hide a file from some tools."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert not list((ROOT / "tests").rglob("__init__.py"))
