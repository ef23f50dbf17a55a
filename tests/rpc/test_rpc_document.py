"""docs/RPC.md says what the node does."""

from tests.rpc.rpc_document import PATH, render


async def test_the_document_is_what_the_registry_says() -> None:
    assert PATH.read_text() == await render(), "run: python -m tests.rpc.rpc_document"
