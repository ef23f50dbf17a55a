"""Where peers can be dialled, pure: as they tell it, so that what is no `host:port` is the fault of who told it."""

from node.chain.errors import PeerError
from serving import endpoint
from serving.endpoint import Endpoint


class InvalidEndpoint(PeerError):
    """The text is no `host:port`."""


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that `text` names. Raises InvalidEndpoint."""
    try:
        return endpoint.parse_endpoint(text)
    except ValueError as error:
        raise InvalidEndpoint(f"endpoint: {error}") from None
