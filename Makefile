# Everything a newcomer needs is `make up`; everything a reviewer needs is `make check test`.
# Variables: PYTHON=/path/to/python3.11 chooses the interpreter, ARGS="--validators 4" goes to psephos up,
# TESTS="tests/merkle -k log" to pytest.
.PHONY: bench-targets bench-peers profile help up down status check test test-clients test-netns test-long sim mutants fuzz compose clean environment environment-dev
.DEFAULT_GOAL := help

help:
	@echo "make up       three validators, a bootnode and a gateway in ./data (Ctrl-C stops them)"
	@echo "make down     stop what is left of them"
	@echo "make status   what runs, where, and how it is"
	@echo "make check    ruff, mypy --strict, import-linter, bandit, architecture tests"
	@echo "make test     the whole test suite"
	@echo "make test-clients  ethers, viem, cast and @ethereumjs against a running network (needs Node.js 20)"
	@echo "make test-netns    partitions between real processes (needs root, ip and iptables)"
	@echo "make test-long     death at each sync, 200 kills: a quarter of an hour"
	@echo "make sim      whole networks under every fault, from seeds (ARGS='--seeds 1000 --from 0')"
	@echo "make mutants  planted bugs, each of which the simulator must catch"
	@echo "make fuzz     bytes from a coverage-guided fuzzer at framing, codecs, JSON-RPC (ARGS='--seconds 600')"
	@echo "make bench-targets  every figure that matters, five runs each, in one table (40 minutes, a quiet machine)"
	@echo "make bench-peers    the same transactions put to anvil, hardhat, ganache and eth-tester (needs Node.js 20)"
	@echo "make profile        where a record's microseconds go, in each process"
	@echo "make compose  the same five services with docker compose"
	@echo "make clean    remove .venv and caches (never ./data)"

environment:
	@sh scripts/environment.sh runtime
environment-dev:
	@sh scripts/environment.sh dev

up: environment
	@.venv/bin/psephos up $(ARGS)

down: environment
	@.venv/bin/psephos down $(ARGS)

status: environment
	@.venv/bin/psephos status $(ARGS)

check: environment-dev
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/bandit --quiet --configfile pyproject.toml --recursive merkle node serving bootnode gateway cluster scripts
	.venv/bin/pytest -q tests/test_architecture.py

test: environment-dev
	.venv/bin/pytest -n 2 --dist worksteal $(TESTS)

test-clients: environment-dev
	.venv/bin/python -m tests.clients.run

test-netns: environment-dev
	.venv/bin/pytest -m netns tests/netns

test-long: environment-dev
	.venv/bin/pytest -m long tests/e2e

sim: environment-dev
	.venv/bin/psephos sim $(ARGS)

mutants: environment-dev
	.venv/bin/python -m tests.sim.mutants

fuzz: environment-dev
	.venv/bin/python -m tests.fuzz.run $(ARGS)

bench-targets: environment-dev
	.venv/bin/python -m bench.targets $(ARGS)

bench-peers: environment-dev
	.venv/bin/python -m bench.peers $(ARGS)

profile: environment-dev
	.venv/bin/python -m bench.profile $(ARGS)

compose:
	docker compose up --build

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
