"""Times as they are written in answers."""

from datetime import UTC, datetime


def shown_time(seconds: float) -> str:
    """ISO 8601 in UTC, of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
