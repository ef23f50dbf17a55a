"""The mutation gate itself: every planted bug still finds the code that it changes, and the hunt finds it."""

import importlib
import inspect
from types import FunctionType

import pytest

from tests.sim.mutants import MUTANTS, hunt
from tests.sim.mutation import Change, StaleMutant
from tests.sim.workers import workers


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_applies(name: str) -> None:
    for change in MUTANTS[name]:
        module, holder, attribute = change.place()
        original = inspect.getattr_static(holder, attribute)
        assert _code(change.changed(module, original)) != _code(original)


def _code(function: FunctionType) -> tuple[object, ...]:
    return function.__code__.co_code, function.__code__.co_names, function.__code__.co_consts


def test_a_mutant_whose_code_is_gone_says_so() -> None:
    with pytest.raises(StaleMutant, match="0 times 'no such line'"):
        Change("node.consensus.quorum:quorum", "no such line", "pass").apply()


def test_a_function_is_changed_wherever_it_is_known() -> None:
    with workers(1) as pool:
        assert pool.apply(_quorum_after_change) == [99, 99, 99]


def _quorum_after_change() -> list[int]:
    change = Change("node.consensus.quorum:quorum", "return -(-2 * count // 3)", "return 99")
    known = [
        importlib.import_module(f"node.{name}") for name in ("consensus.quorum", "consensus.certificate", "ledger")
    ]
    change.apply()
    return [module.quorum(4) for module in known]


def test_a_planted_bug_is_caught() -> None:
    with workers(1) as pool:
        verdict = pool.apply(hunt, ("acknowledged at the mempool", 3))
    assert verdict.caught is not None
    assert verdict.caught.invariant == "acknowledged is on the chain"
