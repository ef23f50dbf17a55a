#!/usr/bin/env bash
# Builds and starts the composed network, casts a ballot as a backend beside it would, and takes everything down.
#   compose-check.sh [ENGINE]   ENGINE: a script that can start a Docker engine (up, seal, unseal, down; exit code 3: cannot)
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${1:-}
[ -x "$engine" ] || engine=''

if [ -n "$engine" ]; then
    code=0
    "$engine" up || code=$?
    if [ "$code" = 3 ]; then
        echo "compose: NOT RUN: no Docker engine can be had on this machine"
        exit 0
    fi
    [ "$code" = 0 ] || { echo "compose: the engine did not start (exit code $code)"; exit 1; }
fi

compose=(docker compose)
docker compose version > /dev/null 2>&1 || compose=(docker-compose)
compose+=(--project-name psephos-check)
# Any free ports: the check is done from inside, and a network that runs here already keeps its own.
export PSEPHOS_GATEWAY_PORT=0 PSEPHOS_RPC_PORT_1=0 PSEPHOS_RPC_PORT_2=0 PSEPHOS_RPC_PORT_3=0 PSEPHOS_BOOTNODE_PORT=0

finish() {
    code=$?
    [ "$code" = 0 ] || "${compose[@]}" logs --no-color --tail 40 || true
    "${compose[@]}" down --volumes --timeout 20 || true
    [ -z "$engine" ] || "$engine" down || true
    exit "$code"
}
trap finish EXIT

"${compose[@]}" build
[ -z "$engine" ] || "$engine" seal
"${compose[@]}" up --detach
# From a container beside the gateway, under the name that backends use.
"${compose[@]}" run --rm --no-deps -T --entrypoint python init - < scripts/compose_client.py
echo "compose: passed"
