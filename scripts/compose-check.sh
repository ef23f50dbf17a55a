#!/usr/bin/env bash
# Builds and starts the composed network, votes in it while its containers die, and takes everything down.
#   compose-check.sh [ENGINE]   ENGINE: a script that can start a Docker engine (up, seal, unseal, down; exit code 3: cannot)
# Where no engine can be had, that is said, and is a failure only with REQUIRE_COMPOSE=1.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${1:-}
[ -x "$engine" ] || engine=''
python=.venv/bin/python

not_run() {
    echo "compose: NOT RUN: $1"
    [ "${REQUIRE_COMPOSE:-}" != 1 ] || { echo "compose: and REQUIRE_COMPOSE=1 asks for it"; exit 1; }
    exit 0
}

if [ -n "$engine" ]; then
    code=0
    "$engine" up || code=$?
    [ "$code" != 3 ] || not_run "no Docker engine can be had on this machine"
    [ "$code" = 0 ] || { echo "compose: the engine did not start (exit code $code)"; exit 1; }
elif ! docker info > /dev/null 2>&1; then
    not_run "no Docker engine answers and nothing here can start one"
fi

compose=(docker compose --project-name psephos-check)
# Any free ports, so that a network that runs here already keeps its own.
export PSEPHOS_GATEWAY_PORT=0 PSEPHOS_RPC_PORT_1=0 PSEPHOS_RPC_PORT_2=0 PSEPHOS_RPC_PORT_3=0 PSEPHOS_BOOTNODE_PORT=0
export PSEPHOS_OBSERVER_PORT=0 PSEPHOS_PROMETHEUS_PORT=0 PSEPHOS_GRAFANA_PORT=0

finish() {
    code=$?
    [ "$code" = 0 ] || "${compose[@]}" logs --no-color --tail 40 || true
    "${compose[@]}" --profile observer down --volumes --timeout 20 || true
    [ -z "$engine" ] || "$engine" down || true
    exit "$code"
}
trap finish EXIT

docker compose version > /dev/null 2>&1 || not_run "there is an engine, and no compose of version 2"
"${compose[@]}" build
[ -z "$engine" ] || "$engine" seal
"${compose[@]}" up --detach --wait
# As a backend in a container beside the gateway, under the name that backends use; then over the published port.
"${compose[@]}" run --rm --no-deps -T --entrypoint python bootnode - http://blockchain-service:8003 4242 20 \
    < scripts/compose_client.py
"$python" scripts/compose_client.py "http://$("${compose[@]}" port gateway 8003)" 4243 20
"$python" scripts/compose_check.py "${compose[@]}"
echo "compose: passed"
