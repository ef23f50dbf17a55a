"""What a gateway tells Prometheus: read from its parts when somebody asks; no voter, nullifier or record is named."""

import time

from gateway.service import Gateway
from gateway.validators import ValidatorStatus
from node.version import VERSION
from serving.connections import ConnectionGuard
from serving.distribution import Calls
from serving.metrics import COMMON, DISK_FREE, INFO, Metric, Page, disk_free_bytes

LEVEL = Metric("psephos_gateway_level", "gauge", "1 all validators, 2 a quorum, 3 no quorum, 4 spool, 5 nothing.")
HEIGHT = Metric("psephos_gateway_height", "gauge", "Height of the newest block that this gateway has verified.")
HEAD_TIME = Metric("psephos_gateway_head_timestamp_seconds", "gauge", "Unix time that this block bears.")
UP = Metric(
    "psephos_gateway_validator_status", "gauge", "1 for the status that a validator has.", ("validator", "status")
)
LATENCY = Metric("psephos_gateway_validator_latency_seconds", "gauge", "Of the last answered probe.", ("validator",))
VALIDATOR_HEIGHT = Metric("psephos_gateway_validator_height", "gauge", "The height that it last told.", ("validator",))
DEPTH = Metric("psephos_gateway_journal_depth", "gauge", "Records that are accepted and not final.")
BYTES = Metric("psephos_gateway_journal_bytes", "gauge", "Bytes of them in memory, about.")
AGE = Metric(
    "psephos_gateway_journal_age_seconds", "gauge", "How long the oldest of them has waited; 0 when none does."
)
DURABLE = Metric("psephos_gateway_durable_total", "counter", "Records synced to disk before they were acknowledged.")
RECORDS = Metric("psephos_gateway_records_total", "counter", "Records whose end is known.", ("kind", "outcome"))
FINALITY = Metric(
    "psephos_gateway_finality_seconds",
    "histogram",
    "From acceptance to verified finality; of each transaction the record that waited longest, counted for all of it.",
)
FAILED_ANCHORS = Metric("psephos_gateway_anchors_failed", "gauge", "Anchors refused too often, which still wait.")
IN_FLIGHT = Metric("psephos_gateway_in_flight_transactions", "gauge", "Transactions that are sent and not final.")
IN_FLIGHT_AGE = Metric("psephos_gateway_in_flight_age_seconds", "gauge", "How long the oldest of them has waited.")
CALLBACKS = Metric("psephos_gateway_callbacks_waiting", "gauge", "Callbacks that are still to be made.")
CONNECTIONS = Metric("psephos_gateway_connections", "gauge", "Open connections of callers.")
HTTP = Metric("psephos_gateway_http_seconds", "histogram", "Time to answer a request, waits included.", ("route",))
HTTP_FAILED = Metric("psephos_gateway_http_failed_total", "counter", "Requests answered with 5xx.", ("route",))

METRICS = (
    *COMMON, LEVEL, HEIGHT, HEAD_TIME, UP, LATENCY, VALIDATOR_HEIGHT, DEPTH, BYTES, AGE, DURABLE, RECORDS, FINALITY,
    FAILED_ANCHORS, IN_FLIGHT, IN_FLIGHT_AGE, CALLBACKS, CONNECTIONS, HTTP, HTTP_FAILED,
)  # fmt: skip


async def fill(page: Page, gateway: Gateway, calls: Calls, guard: ConnectionGuard) -> None:
    """Put everything on a page."""
    head, now_s = gateway.follower.head.header, time.time()
    page.put(INFO, 1, VERSION, "gateway", gateway.config.name, "0x" + gateway.address.hex())
    page.put(LEVEL, gateway.level())
    page.put(HEIGHT, head.number)
    page.put(HEAD_TIME, head.timestamp)
    for validator in gateway.pool.validators:
        name = validator.node.node_id
        for status in ValidatorStatus:
            page.put(UP, int(validator.status is status), name, status.value)
        if validator.latency_ms is not None:
            page.put(LATENCY, validator.latency_ms / 1000, name)
        page.put(VALIDATOR_HEIGHT, max(0, validator.height), name)
    page.put(DEPTH, gateway.book.pending_count)
    page.put(BYTES, gateway.book.pending_bytes)
    oldest_ms = gateway.durability.oldest_received_at_ms()
    page.put(AGE, 0 if oldest_ms is None else max(0.0, now_s - oldest_ms / 1000))
    page.put(DURABLE, gateway.durability.accepted_count)
    for (kind, outcome), count in sorted(gateway.delivery.ends.items()):
        page.put(RECORDS, count, kind, outcome)
    page.put_distribution(FINALITY, gateway.delivery.finality)
    page.put(FAILED_ANCHORS, len(gateway.book.failed_anchors()))
    page.put(IN_FLIGHT, gateway.sender.in_flight_count)
    page.put(IN_FLIGHT_AGE, gateway.sender.oldest_age_s())
    page.put(CALLBACKS, len(gateway.callbacks))
    page.put(CONNECTIONS, len(guard))
    page.put_distributions(HTTP, calls.seconds)
    page.put_counts(HTTP_FAILED, {route: calls.failed[route] for route, _ in calls.seconds})
    for what, folder in (("journal", gateway.config.journal), ("spool", gateway.config.spool)):
        page.put(DISK_FREE, disk_free_bytes(folder), what)
