"""eth-tester behind JSON-RPC: `python eth_tester_server.py PORT CHAIN_ID MNEMONIC`, in an environment that has it.

eth-tester is a library and has no server. This one answers the calls of the comparison, one after the other, and adds
as little as the standard library's HTTP server allows. Each transaction gets a block at once, which is its default.
"""

import http.server
import importlib
import json
import sys
import threading
from typing import Any

ACCOUNTS = 64
HD_PATH = "m/44'/60'/0'/0"


class Methods:
    """What the comparison calls. Loaded by name, since the project's own environment has no eth-tester."""

    def __init__(self, chain_id: int, mnemonic: str) -> None:
        eth_tester: Any = importlib.import_module("eth_tester")
        backend = eth_tester.PyEVMBackend.from_mnemonic(mnemonic, num_accounts=ACCOUNTS, hd_path=HD_PATH)
        type(backend.chain).chain_id = chain_id
        self._chain_id = chain_id
        self._tester = eth_tester.EthereumTester(backend)
        self.version = importlib.import_module("importlib.metadata").version("eth-tester")

    def call(self, method: str, params: list[Any]) -> object:
        """The result of a call. Raises whatever eth-tester raises."""
        tester = self._tester
        if method == "eth_sendRawTransaction":
            return tester.send_raw_transaction(params[0])
        if method == "eth_chainId":
            return hex(self._chain_id)
        if method == "eth_blockNumber":
            return hex(self._block("latest")["number"])
        if method == "eth_getBalance":
            return hex(tester.get_balance(_checksummed(params[0])))
        if method == "eth_getTransactionCount":
            return hex(tester.get_nonce(_checksummed(params[0])))
        if method == "eth_getBlockTransactionCountByNumber":
            return hex(len(self._block(int(params[0], 16))["transactions"]))
        if method == "eth_getBlockByNumber":
            block = self._block(int(params[0], 16))
            return {"hash": block["hash"], "transactions": list(block["transactions"])}
        if method == "web3_clientVersion":
            return f"eth-tester/{self.version}"
        raise ValueError(f"no method {method}")

    def _block(self, number: int | str) -> Any:
        return self._tester.get_block_by_number(number, full_transactions=False)


def _checksummed(address: str) -> Any:
    return importlib.import_module("eth_utils").to_checksum_address(address)


def answer(methods: Methods, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to one request; what fails is told as an error."""
    try:
        return {"jsonrpc": "2.0", "id": request.get("id"), "result": methods.call(request["method"], request["params"])}
    except Exception as error:
        return {"jsonrpc": "2.0", "id": request.get("id"), "error": {"code": -32000, "message": repr(error)[:300]}}


def serve(port: int, methods: Methods) -> None:
    """Serve until the process is ended. One thread for each connection; calls go one after the other."""
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        """POST of a request, or of a batch of them."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                told = [answer(methods, one) for one in body] if isinstance(body, list) else answer(methods, body)
            data = json.dumps(told, separators=(",", ":")).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    class Server(http.server.ThreadingHTTPServer):
        """Takes as many connections at once as the generator opens."""

        request_queue_size = 256
        daemon_threads = True

    Server(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Methods(int(sys.argv[2]), sys.argv[3]))
