"""How much one caller may ask of a node at once; every limit that an answer can meet is named in that answer."""

from dataclasses import dataclass, fields
from typing import Annotated


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of JSON-RPC: the table `[rpc.limits]`. The defaults are safe for a node that strangers can reach."""

    body_bytes_max: Annotated[int, "Largest HTTP body and WebSocket message."] = 16 << 20
    requests_bytes_max: Annotated[int, "Most bytes of requests in hand at a time, over all connections."] = 128 << 20
    sender_timeout_s: Annotated[float, "How long a request may take to arrive, and an answer to be read."] = 9.0
    idle_timeout_s: Annotated[float, "How long a connection is kept between two requests."] = 75.0
    connections_max: Annotated[int, "Most connections to one listener at a time."] = 1_024
    connections_per_address_max: Annotated[int, "Most of them from one IP address."] = 512
    json_depth_max: Annotated[int, "How deeply a message may nest arrays and objects."] = 64
    batch_items_max: Annotated[int, "Most requests in a batch."] = 2_000
    call_timeout_s: Annotated[float, "How long one call, or a whole batch, may take; above poll_wait_ms_max."] = 45.0
    response_bytes_max: Annotated[int, "Largest response; those of a batch count together."] = 64 << 20
    log_blocks_max: Annotated[int, "Widest block range of eth_getLogs."] = 100_000
    logs_max: Annotated[int, "Most event logs in one answer of eth_getLogs."] = 20_000
    filters_max: Annotated[int, "Most filters at a time."] = 1_000
    filter_idle_s: Annotated[float, "A filter that is not polled for this long is forgotten."] = 300.0
    filter_hashes_max: Annotated[int, "Most block hashes in one poll of a filter."] = 20_000
    fee_history_blocks_max: Annotated[int, "Most blocks in one eth_feeHistory."] = 1_024
    poll_blocks_max: Annotated[int, "Most blocks in one poa_getBlocks."] = 64
    poll_bytes_max: Annotated[int, "Most bytes of blocks in one poa_getBlocks, past the first block."] = 8 << 20
    poll_wait_ms_max: Annotated[int, "How long poa_getBlocks waits at most."] = 30_000
    polls_waiting_max: Annotated[int, "Most poa_getBlocks that wait at a time; more are answered at once."] = 256
    statistics_blocks_max: Annotated[int, "Widest block range of poa_getStatistics and poa_getEvidence."] = 10_000
    cached_blocks_max: Annotated[int, "Most decoded blocks kept in memory."] = 64
    cached_bytes_max: Annotated[int, "Most bytes of decoded blocks kept in memory."] = 32 << 20
    websockets_max: Annotated[int, "Most WebSocket connections at a time."] = 256
    subscriptions_max: Annotated[int, "Most subscriptions of one connection."] = 64
    calls_at_once_max: Annotated[int, "Most calls of one connection that run at a time; the rest wait unread."] = 8
    send_timeout_s: Annotated[float, "A connection whose reader takes nothing for this long is closed."] = 10.0
    subscription_lag_blocks_max: Annotated[int, "A subscriber further behind the head than this is dropped."] = 1_024
    subscription_waiting_max: Annotated[int, "Most new transactions that wait for one subscriber."] = 20_000

    def __post_init__(self) -> None:
        """Raises ValueError on a bound that would let nothing through."""
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name}: expected more than 0, not {getattr(self, field.name)}")
