"""How long rounds may take: policy for liveness, never a condition of safety."""

from node.consensus.events import Policy

DOUBLINGS_MAX = 3


def backoff_ms(policy: Policy, times: int) -> int:
    """The base timeout, doubled `times` times, up to eight times the base. It falls back at a new head."""
    return policy.round_timeout_ms << min(times, DOUBLINGS_MAX)
