// Odd requests, put to a node and to a fresh anvil: where the error's code or the answer's shape differs, there is a
// reason here; and where a reason stands here, there is a difference.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { account, ask, send, until, url } from "./network.mjs";

const A = account(40).address.toLowerCase(); // neither funded by anvil nor used here by anyone else
const STRANGER = "0x" + "99".repeat(20);
const H = "0x" + "11".repeat(32);

const SPEC = "JSON-RPC 2.0 demands it: what is no JSON is -32700, and each bad member of a batch gets an error of its own";
const FRACTION = "JSON-RPC 2.0 allows numbers with a fraction as ids, and advises clients against them";
const BY_NAME = "JSON-RPC 2.0 allows parameters by name; here they are named as in docs/RPC.md";
const OPTIONAL = "geth lets the last parameters be left out, and clients rely on it";
const CANONICAL = "the execution API specification's quantities have no leading zeros and no missing prefix, as in geth";
const NO_HEADER = "geth's code and words for state of a block that does not exist: -32000, header not found";
const NULL = "what does not exist is null, as the execution API specification has it";
const RANGE = "geth's code for a reversed range is -32000; a range beyond the head finds nothing yet, and is no error";
const DECODING = "geth's code for bytes that are no transaction is -32000: they are data, as the parameter demands";
const NO_EVM = "a call without 'to' deploys, and there is no EVM";
const INPUT = "geth refuses 'data' and 'input' that differ: one of them is a mistake";
const FUNDS = "geth's code for insufficient funds is -32000, and an estimate of what cannot be paid is refused";
const FEES = "geth refuses percentiles that are out of order or out of range, and blocks beyond the head";
const SIGNER = "geth's code and words for an account that the node does not hold: -32000, unknown account";
const RAW = "anvil has no such method; geth and the execution API specification have";
const MINING = "there is no mining; geth has dropped these methods since 1.14";

const BODIES = [
  ["", SPEC], ["{", SPEC], ["[]"], ["[1]", SPEC], ["[[]]", SPEC], ["1"], ["null"], ['"x"'],
  ['{"jsonrpc":"2.0","id":1}'],
  ['{"jsonrpc":"1.0","id":1,"method":"eth_blockNumber"}'],
  ['{"id":1,"method":"eth_blockNumber","params":[]}'],
  ['{"jsonrpc":"2.0","method":"eth_blockNumber","params":[]}'],
  ['{"jsonrpc":"2.0","id":null,"method":"eth_chainId","params":[]}'],
  ['{"jsonrpc":"2.0","id":"a","method":"eth_chainId"}'],
  ['{"jsonrpc":"2.0","id":1.5,"method":"eth_chainId"}', FRACTION],
  ['{"jsonrpc":"2.0","id":true,"method":"eth_chainId"}'],
  ['{"jsonrpc":"2.0","id":{},"method":"eth_chainId"}'],
  ['{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":null}'],
  ['{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":{}}', BY_NAME],
  ['{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":"x"}'],
  ['{"jsonrpc":"2.0","id":1,"method":7}'],
  ['[{"jsonrpc":"2.0","id":1,"method":"eth_chainId"},{"jsonrpc":"2.0","method":"eth_chainId"},3]', SPEC],
  ['[{"jsonrpc":"2.0","method":"eth_chainId"}]'],
];

const CALLS = [
  ["eth_nothing", []], ["eth_chainId", [1]],
  ["eth_getBalance", []], ["eth_getBalance", [A], OPTIONAL], ["eth_getBalance", ["0x1"]],
  ["eth_getBalance", [A, "0x0"]], ["eth_getBalance", [A, "0x00"], CANONICAL], ["eth_getBalance", [A, "0x"]],
  ["eth_getBalance", [A, "12"]], ["eth_getBalance", [A, 12]], ["eth_getBalance", [A, "0xffffff"], NO_HEADER],
  ["eth_getBalance", [A, "now"]], ["eth_getBalance", [A.slice(2), "latest"], CANONICAL],
  ["eth_getBalance", [A, "latest", "x"]], ["eth_getBalance", [A, null]],
  ["eth_getBalance", [A, { blockNumber: "0x0" }]], ["eth_getBalance", [A, { blockHash: H }], NO_HEADER],
  ["eth_getBalance", [A, { blockHash: H, requireCanonical: true }], NO_HEADER], ["eth_getBalance", [A, {}]],
  ["eth_getBalance", [A, { blockNumber: "0x0", blockHash: H }]], ["eth_getBalance", [A, H], NO_HEADER],
  ["eth_getCode", [A], OPTIONAL], ["eth_getTransactionCount", [A, "pending"]],
  ["eth_getBlockByNumber", ["latest"], OPTIONAL], ["eth_getBlockByNumber", ["0xffffff", false]],
  ["eth_getBlockByNumber", ["0x1g", false]], ["eth_getBlockByNumber", ["0x0", "yes"]],
  ["eth_getBlockByNumber", [{ blockNumber: "0x0" }, false]],
  ["eth_getBlockByHash", [H, true]], ["eth_getBlockByHash", ["0x1", true]],
  ["eth_getTransactionByHash", [H]], ["eth_getTransactionByHash", ["0x11"]], ["eth_getTransactionReceipt", [H]],
  ["eth_getTransactionByBlockNumberAndIndex", ["0x0", "0x9"]], ["eth_getTransactionByBlockHashAndIndex", [H, "0x0"]],
  ["eth_getUncleByBlockNumberAndIndex", ["latest", "0x0"]], ["eth_getUncleCountByBlockNumber", ["0xffffff"], NULL],
  ["eth_getUncleCountByBlockHash", [H], NULL], ["eth_getBlockReceipts", ["0xffffff"]], ["eth_getBlockReceipts", [H]],
  ["eth_getBlockTransactionCountByNumber", ["0xffffff"], NULL],
  ["eth_getStorageAt", [A, "0x0", "latest"]], ["eth_getStorageAt", [A, "0x00", "latest"]],
  ["eth_getStorageAt", [A, "0", "latest"], CANONICAL], ["eth_getStorageAt", [A, "0x" + "1".repeat(65), "latest"]],
  ["eth_getLogs", []], ["eth_getLogs", [{}]], ["eth_getLogs", [{ fromBlock: "0x5", toBlock: "0x1" }], RANGE],
  ["eth_getLogs", [{ blockHash: H }]], ["eth_getLogs", [{ blockHash: H, fromBlock: "0x0" }]],
  ["eth_getLogs", [{ topics: ["0x1"] }]], ["eth_getLogs", [{ topics: [null, null, null, null, null] }]],
  ["eth_getLogs", [{ address: [] }]], ["eth_getLogs", [{ fromBlock: "0xffffff" }], RANGE],
  ["eth_getFilterChanges", ["0x1"]], ["eth_getFilterLogs", ["0x1"]], ["eth_uninstallFilter", ["0x1"]],
  ["eth_sendRawTransaction", []], ["eth_sendRawTransaction", ["zz"]], ["eth_sendRawTransaction", ["0x"], DECODING],
  ["eth_sendRawTransaction", ["0x00"], DECODING], ["eth_sendRawTransaction", ["0x02c0"], DECODING],
  ["eth_call", [{ to: A }]], ["eth_call", [{ to: A, data: "0x1" }]], ["eth_call", [{}], NO_EVM],
  ["eth_call", [{ to: A, data: "0x01", input: "0x02" }], INPUT], ["eth_call", [{ to: A, gas: "0x1" }]],
  ["eth_call", [{ to: A, from: STRANGER, value: "0x1" }], FUNDS], ["eth_call", [{ to: A }, "0xffffff"], NO_HEADER],
  ["eth_estimateGas", [{ to: A, from: A }]], ["eth_estimateGas", [{ to: A, from: STRANGER, value: "0x1" }], FUNDS],
  ["eth_feeHistory", ["0x1", "latest", [50]]], ["eth_feeHistory", [1, "latest", [50, 10]], FEES],
  ["eth_feeHistory", ["0x1", "0xffffff", []], FEES], ["eth_feeHistory", ["0x1", "latest", [101]], FEES],
  ["eth_sendTransaction", [{ from: STRANGER, to: A }], SIGNER], ["eth_sign", [STRANGER, "0x00"], SIGNER],
  ["web3_sha3", ["0x"]], ["web3_sha3", []], ["web3_sha3", ["x"]], ["net_version", []], ["net_listening", []],
  ["eth_syncing", []], ["eth_accounts", []], ["eth_gasPrice", []], ["eth_maxPriorityFeePerGas", []],
  ["eth_blobBaseFee", []], ["txpool_status", []], ["txpool_inspect", []], ["txpool_content", []],
  ["eth_getProof", [A, [], "latest"]], ["eth_getProof", [A, ["x"], "latest"]], ["eth_getProof", [A]],
  ["eth_subscribe", ["newHeads"]], ["eth_unsubscribe", ["0x1"]],
  ["debug_getRawTransaction", [H]], ["debug_getRawHeader", ["0xffffff"], RAW],
  ["eth_coinbase", [], MINING], ["eth_hashrate", [], MINING], ["eth_mining", []],
];

let anvil;
let anvilUrl;

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

before(async () => {
  const port = await freePort();
  anvilUrl = `http://127.0.0.1:${port}`;
  const binary = fileURLToPath(new URL("node_modules/.bin/anvil", import.meta.url));
  anvil = spawn(binary, ["--port", String(port), "--hardfork", "london", "--silent"], { stdio: "ignore" });
  await until(async () => ask("eth_chainId", [], anvilUrl).catch(() => null), "anvil answers");
});
after(() => anvil.kill());

/** What two answers must have in common: an error's code, or the kind of result; of batches, member by member. */
function shape(answer) {
  if (answer === null) return "nothing";
  if (Array.isArray(answer)) return `[${answer.map(shape).join(", ")}]`;
  if (answer.error) return `error ${answer.error.code}`;
  if (answer.result === null) return "null";
  return Array.isArray(answer.result) ? "array" : typeof answer.result;
}

function compare(ours, theirs, reason, what) {
  const [here, there] = [shape(ours), shape(theirs)];
  const answers = `${what}: here ${here} ${JSON.stringify(ours)?.slice(0, 300)}, anvil ${there} ${JSON.stringify(theirs)?.slice(0, 300)}`;
  if (reason) assert.notEqual(here, there, `no difference left to explain: ${answers}`);
  else assert.equal(here, there, answers);
}

test("messages", async () => {
  for (const [body, reason] of BODIES) compare(await send(body, url), await send(body, anvilUrl), reason, body);
});

test("calls", async () => {
  for (const [method, params, reason] of CALLS) {
    compare(await ask(method, params, url), await ask(method, params, anvilUrl), reason, `${method} ${JSON.stringify(params)}`);
  }
});
