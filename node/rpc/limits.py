"""How much one caller may ask of a node at once; every limit that an answer can meet is named in that answer."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of JSON-RPC. The defaults are safe for a node that strangers can reach."""

    body_bytes_max: int = 16 << 20
    body_timeout_s: float = 8.0
    batch_items_max: int = 2_000
    call_timeout_s: float = 45.0  # above wait_ms_max, so that a long poll ends by itself
    response_bytes_max: int = 64 << 20
    log_blocks_max: int = 100_000
    logs_max: int = 20_000
    filters_max: int = 1_000
    filter_idle_s: float = 300.0
    filter_hashes_max: int = 20_000
    fee_history_blocks_max: int = 1_024
    poll_blocks_max: int = 64
    poll_bytes_max: int = 8 << 20
    poll_wait_ms_max: int = 30_000
    polls_waiting_max: int = 256
    cached_blocks_max: int = 64
    cached_bytes_max: int = 32 << 20
