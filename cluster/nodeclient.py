"""What the command line asks of a running node over JSON-RPC, and the transactions that it sends there."""

import time
from pathlib import Path
from typing import Any

import httpx

from cluster.network import ClusterError, load, require
from node.chain.contracts import validators
from node.chain.contracts.addresses import VALIDATORS
from node.chain.receipt import EventLog
from node.chain.signing import SigningKey
from node.chain.transaction import sign_transaction

GAS = 5_000_000
FINAL_WITHIN_S = 30.0
ABI = validators.ABI


class Refused(ClusterError):
    """The contract refused a call; `name` is its named error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class NodeClient:
    """One node's JSON-RPC. Every failure is a ClusterError that says what to do."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url = url
        self._http = httpx.Client(timeout=timeout_s, trust_env=False)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def ask(self, method: str, *parameters: object) -> Any:
        """The result of one call."""
        answer = self._post(method, parameters)
        if "error" in answer:
            raise ClusterError(f"{self.url} refused {method}: {answer['error'].get('message')}")
        return answer["result"]

    def view(self, name: str, *arguments: object) -> Any:
        """What a view of the Validators contract answers at the head."""
        (value,) = ABI.decode_result(name, self._call(ABI.encode_call(name, *arguments), bytes(20)))
        return value

    def send(self, key: SigningKey, name: str, *arguments: object) -> list[tuple[str, tuple[Any, ...]]]:
        """Call a function of the Validators contract by a transaction, and wait for its events.

        Raises Refused when the contract says no; nothing is sent then.
        """
        data = ABI.encode_call(name, *arguments)
        self._call(data, key.address)
        sender = "0x" + key.address.hex()
        transaction = sign_transaction(
            key,
            chain_id=int(self.ask("eth_chainId"), 16),
            nonce=int(self.ask("eth_getTransactionCount", sender, "pending"), 16),
            to=VALIDATORS,
            gas_limit=GAS,
            data=data,
        )
        digest = self.ask("eth_sendRawTransaction", "0x" + transaction.raw.hex())
        return self._events(self._receipt(digest))

    def _call(self, data: bytes, sender: bytes) -> bytes:
        call = {"from": "0x" + sender.hex(), "to": "0x" + VALIDATORS.hex(), "data": "0x" + data.hex()}
        answer = self._post("eth_call", (call, "latest"))
        if "error" not in answer:
            return bytes.fromhex(answer["result"][2:])
        error = answer["error"]
        named = ABI.decode_error(bytes.fromhex(str(error.get("data") or "0x")[2:]))
        if named is None:
            raise ClusterError(f"{self.url} refused the call: {error.get('message')}")
        shown = ", ".join(f"0x{each.hex()}" if isinstance(each, bytes) else str(each) for each in named[1])
        raise Refused(named[0], f"the Validators contract refuses: {named[0]}({shown})")

    def _receipt(self, digest: str) -> dict[str, Any]:
        deadline = time.monotonic() + FINAL_WITHIN_S
        while True:
            receipt: dict[str, Any] | None = self.ask("eth_getTransactionReceipt", digest)
            if receipt is not None:
                if receipt["status"] != "0x1":
                    raise ClusterError(f"transaction {digest} failed: somebody else was faster; look at `votes`")
                return receipt
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"transaction {digest} is not final after {FINAL_WITHIN_S:.0f} s: is there a quorum? It stays in "
                    "the mempool and may yet count"
                )
            time.sleep(0.1)

    @staticmethod
    def _events(receipt: dict[str, Any]) -> list[tuple[str, tuple[Any, ...]]]:
        def data(text: str) -> bytes:
            return bytes.fromhex(text[2:])

        logs = (
            EventLog(data(log["address"]), tuple(map(data, log["topics"])), data(log["data"]))
            for log in receipt["logs"]
        )
        return [event for log in logs if (event := ABI.decode_event(log)) is not None]

    def _post(self, method: str, parameters: tuple[object, ...]) -> dict[str, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        try:
            answer = self._http.post(self.url, json=body).json()
        except httpx.HTTPError as error:
            raise ClusterError(f"no answer from {self.url} ({error}): name another node with --rpc") from None
        except ValueError:
            raise ClusterError(f"{self.url} does not speak JSON-RPC: name a node with --rpc") from None
        if not isinstance(answer, dict) or not answer.keys() & {"result", "error"}:
            raise ClusterError(f"{self.url} does not speak JSON-RPC: name a node with --rpc")
        return answer


def find_node(data_dir: Path, url: str | None) -> NodeClient:
    """The node that --rpc names, or the first validator of the data directory that answers."""
    if url:
        return NodeClient(url)
    for process in require(data_dir).of_kind("validator"):
        client = NodeClient(process.url)
        try:
            client.ask("eth_chainId")
        except ClusterError:
            client.close()
        else:
            return client
    raise ClusterError(f"no validator of {data_dir} answers: start one, or name a node with --rpc")


def known_names(data_dir: Path) -> dict[str, str]:
    """What the data directory, if there is one, calls each address (0x-hex, lower case)."""
    network = load(data_dir) if data_dir.exists() else None
    return {process.address: process.name for process in network or () if process.address}
