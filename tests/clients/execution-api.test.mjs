// Every answer against the execution API specification's own schema of the method, as the npm package that carries the
// document has it. Where an answer differs there is a reason here; and where a reason stands here, there is a difference.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import Ajv from "ajv"; // draft 7, which OpenRPC 1.2 prescribes for schemas
import { Contract, JsonRpcProvider, Wallet, WebSocketProvider } from "ethers";
import { account, ask, call, contracts, fresh, until, url, word, wsUrl } from "./network.mjs";

const SPECIFICATION = createRequire(import.meta.url)("@metamask/api-specs/dist/build/openrpc.json");
const ref = (name) => ({ $ref: `#/components/schemas/${name}` });
const orNull = (schema) => ({ oneOf: [{ type: "null" }, schema] });
const listOf = (items) => ({ type: "array", items });

// Methods of the specification that the package leaves out; their results are made of the document's own components.
const LEFT_OUT = {
  eth_getBlockReceipts: orNull(listOf(ref("ReceiptInfo"))),
  eth_maxPriorityFeePerGas: ref("uint"),
  eth_sign: ref("bytes65"),
  debug_getRawBlock: ref("bytes"),
  debug_getRawHeader: ref("bytes"),
  debug_getRawReceipts: listOf(ref("bytes")),
  debug_getRawTransaction: ref("bytes"),
};

const WALLET = "of a wallet that asks its user, not of a node";
const MINING = "there is no mining; geth has dropped it since 1.14";
const LACKING = {
  ...Object.fromEntries(SPECIFICATION.methods.filter(({ name }) => name.startsWith("wallet_")).map(({ name }) => [name, WALLET])),
  eth_requestAccounts: WALLET,
  eth_decrypt: WALLET,
  eth_getEncryptionPublicKey: WALLET,
  eth_coinbase: MINING,
};

const nullable = (schema, names) => {
  for (const name of names) schema.properties[name] = orNull(schema.properties[name]);
};
/** Where an answer differs from the document: why, and the change of the document that would allow it. */
const DIFFERENCES = {
  TIMESTAMP: {
    reason: "later versions of the specification, and geth since 1.16, give event logs the time of their block",
    allow: ({ Log }) => { Log.properties.blockTimestamp = ref("uint"); },
  },
  EMPTY: {
    reason: "the document says 'oneOf' of a list of hashes and one of event logs: an empty list is both, so none is allowed",
    allow: ({ FilterResults }) => { FilterResults.anyOf = FilterResults.oneOf; delete FilterResults.oneOf; },
  },
  WAITING: {
    reason: "a transaction that waits is in no block: null, as geth has it and as ethers and viem read it",
    allow: ({ TransactionInfo }) => nullable(TransactionInfo.allOf[0], ["blockHash", "blockNumber", "transactionIndex"]),
  },
  PENDING: {
    reason: "a block that is not sealed has no hash, nonce or proposer: null, as geth has it and as ethers and viem read it",
    allow: ({ Block }) => nullable(Block, ["hash", "miner", "nonce"]),
  },
};

const validators = new Map();

/** What checks the method's results, with these differences from the document allowed. */
function validator(method, allowed) {
  const key = [method, ...allowed].join();
  if (!validators.has(key)) {
    const document = structuredClone(SPECIFICATION);
    for (const name of allowed) DIFFERENCES[name].allow(document.components.schemas);
    const result = LEFT_OUT[method] ?? document.methods.find(({ name }) => name === method).result.schema;
    const ajv = new Ajv({ strict: false, allErrors: true });
    validators.set(key, ajv.compile({ components: document.components, allOf: [result] }));
  }
  return validators.get(key);
}

const tried = new Set();
const needed = new Set();

/** Check a result: it meets the schema with the differences allowed, and does not with any of them taken away. */
function check(method, result, what, ...differences) {
  const meets = validator(method, differences);
  const shown = `${method} ${JSON.stringify(what)}: ${JSON.stringify(result)?.slice(0, 1000)}`;
  assert.ok(meets(result), `${shown}\n${JSON.stringify(meets.errors, null, 1)}`);
  for (const one of differences) {
    const rest = differences.filter((other) => other !== one);
    assert.ok(!validator(method, rest)(result), `no difference left to explain (${DIFFERENCES[one].reason}): ${shown}`);
    needed.add(one);
  }
  tried.add(method);
}

/** One call whose answer is checked; the result. */
async function checked(method, params, ...differences) {
  const result = await call(method, ...params);
  check(method, result, params, ...differences);
  return result;
}

const ABSENT = "0x" + "11".repeat(32);
const BEYOND = "0xffffffff";
const NOBODY = "0x" + "99".repeat(20);
const me = account(60);
const other = account(61).address;
const provider = new JsonRpcProvider(url, undefined, { pollingInterval: 50, cacheTimeout: -1 });
const wallet = new Wallet(me.privateKey, provider);
const elections = new Contract(contracts.Elections.address, contracts.Elections.abi, wallet);
const filter = { fromBlock: "0x0", address: contracts.Elections.address };
const chain = {};
let socket;

/** Receipts of transfers of every type, of an election, of a ballot, and of one that was refused. */
before(async () => {
  socket = new WebSocketProvider(wsUrl);
  await socket.ready;
  const id = fresh();
  const ballot = [id, word(fresh()), word(fresh()), 0, "0x01"];
  const accessList = [{ address: other, storageKeys: [word(3)] }];
  const requests = [
    { to: other, value: 1n, type: 0, gasPrice: 0n },
    { to: other, value: 1n, type: 1, gasPrice: 3n, accessList },
    { to: other, value: 1n, type: 2, maxFeePerGas: 5n, maxPriorityFeePerGas: 2n, accessList },
    await elections.create.populateTransaction(id, "Schemas", ["a", "b"], 3, 0, 0, 60, [me.address], word(0)),
    await elections.cast.populateTransaction(...ballot),
    await elections.cast.populateTransaction(...ballot),
  ];
  const first = await provider.getTransactionCount(me.address, "pending");
  const hashes = [];
  for (const [index, request] of requests.entries()) {
    const sent = await wallet.sendTransaction({ gasLimit: 1_000_000n, ...request, nonce: first + index });
    hashes.push(sent.hash);
  }
  for (const hash of hashes) await until(() => call("eth_getTransactionReceipt", hash), `${hash} is final`);
  Object.assign(chain, { hashes, created: hashes[3], cast: hashes[4], refused: hashes[5], ballot, next: first + hashes.length });
});
after(async () => {
  provider.destroy();
  await socket?.destroy();
});

test("receipts and transactions of every type, in their blocks; an event log; a refused call; nothing", async () => {
  const types = new Set();
  for (const hash of chain.hashes) {
    const silent = ![chain.created, chain.cast].includes(hash);
    const receipt = await checked("eth_getTransactionReceipt", [hash], ...(silent ? [] : ["TIMESTAMP"]));
    assert.equal(receipt.status, hash === chain.refused ? "0x0" : "0x1");
    assert.equal(receipt.logs.length === 0, silent);
    types.add((await checked("eth_getTransactionByHash", [hash])).type);
    const { blockHash, blockNumber, transactionIndex } = receipt;
    await checked("eth_getTransactionByBlockHashAndIndex", [blockHash, transactionIndex]);
    await checked("eth_getTransactionByBlockNumberAndIndex", [blockNumber, transactionIndex]);
    await checked("debug_getRawTransaction", [hash]);
    for (const full of [false, true]) {
      await checked("eth_getBlockByHash", [blockHash, full]);
      await checked("eth_getBlockByNumber", [blockNumber, full]);
    }
  }
  assert.deepEqual([...types].sort(), ["0x0", "0x1", "0x2"]);
  for (const method of ["eth_getTransactionReceipt", "eth_getTransactionByHash"]) {
    assert.equal(await checked(method, [ABSENT]), null);
  }
  assert.equal(await checked("eth_getTransactionByBlockHashAndIndex", [ABSENT, "0x0"]), null);
  assert.equal(await checked("eth_getTransactionByBlockNumberAndIndex", ["0x0", "0x9"]), null);
});

test("blocks: the first, the last, the pending one, none; what they count; their receipts and raw bytes", async () => {
  for (const tag of ["earliest", "latest", "safe", "finalized", "0x0", "0x1"]) {
    for (const full of [false, true]) await checked("eth_getBlockByNumber", [tag, full]);
  }
  for (const full of [false, true]) await checked("eth_getBlockByNumber", ["pending", full], "PENDING");
  assert.equal(await checked("eth_getBlockByNumber", [BEYOND, true]), null);
  assert.equal(await checked("eth_getBlockByHash", [ABSENT, true]), null);
  const { blockHash, blockNumber } = await call("eth_getTransactionReceipt", chain.cast);
  for (const what of ["eth_getBlockTransactionCountBy", "eth_getUncleCountByBlock"]) {
    assert.notEqual(await checked(`${what}Hash`, [blockHash]), null);
    assert.equal(await checked(`${what}Hash`, [ABSENT]), null);
    assert.notEqual(await checked(`${what}Number`, [blockNumber]), null);
    assert.equal(await checked(`${what}Number`, [BEYOND]), null);
  }
  assert.ok((await checked("eth_getBlockReceipts", [blockNumber], "TIMESTAMP")).length > 0);
  assert.deepEqual(await checked("eth_getBlockReceipts", ["0x0"]), []);
  assert.equal(await checked("eth_getBlockReceipts", [BEYOND]), null);
  for (const what of ["Block", "Header", "Receipts"]) await checked(`debug_getRaw${what}`, [blockNumber]);
});

test("a transaction that waits, and one that is sent raw", async () => {
  const request = { to: other, gas: "0x5208", chainId: await call("eth_chainId"), type: 2, maxFeePerGas: 0n, maxPriorityFeePerGas: 0n };
  const sign = (nonce) => me.connect(null).signTransaction({ ...request, gas: undefined, gasLimit: 21000n, nonce });
  const waiting = await checked("eth_sendRawTransaction", [await sign(chain.next + 1)]); // the nonce before it is missing
  const found = await checked("eth_getTransactionByHash", [waiting], "WAITING");
  assert.equal(found.blockHash, null);
  assert.equal(await checked("eth_getTransactionReceipt", [waiting]), null);
  const filling = await checked("eth_sendRawTransaction", [await sign(chain.next)]);
  for (const hash of [filling, waiting]) await until(() => call("eth_getTransactionReceipt", hash), `${hash} is final`);
});

test("the node signs for a development network's accounts", async () => {
  const signer = account(62).address;
  assert.ok((await checked("eth_accounts", [])).includes(signer.toLowerCase()));
  const hash = await checked("eth_sendTransaction", [{ from: signer, to: other, value: "0x1" }]);
  await until(() => call("eth_getTransactionReceipt", hash), `${hash} is final`);
  await checked("eth_sign", [signer, "0x00ff"]);
  await checked("personal_sign", ["0x00ff", signer]);
  const typed = {
    types: { EIP712Domain: [{ name: "name", type: "string" }], Note: [{ name: "text", type: "string" }] },
    primaryType: "Note", domain: { name: "Psephos" }, message: { text: "hello" },
  };
  await checked("eth_signTypedData_v4", [signer, typed]);
});

test("accounts, slots and proofs: present and absent, now and at the first block", async () => {
  const slots = [word(0), "0x1", word(2n ** 256n - 1n)];
  for (const tag of ["latest", "0x0", "pending"]) {
    for (const address of [me.address, contracts.Elections.address, NOBODY]) {
      for (const method of ["eth_getBalance", "eth_getTransactionCount", "eth_getCode"]) await checked(method, [address, tag]);
      await checked("eth_getStorageAt", [address, "0x0", tag]);
      const proof = await checked("eth_getProof", [address, slots, tag]);
      assert.equal(proof.storageProof.length, slots.length);
    }
  }
});

test("calls and prices", async () => {
  const request = { from: me.address, to: contracts.Elections.address };
  const tally = elections.interface.encodeFunctionData("tally", [chain.ballot[0]]);
  assert.ok((await checked("eth_call", [{ ...request, data: tally }, "latest"])).length > 2);
  assert.equal(await checked("eth_call", [{ to: NOBODY }, "latest"]), "0x");
  const again = [chain.ballot[0], word(fresh()), word(fresh()), 0, "0x00"];
  const data = elections.interface.encodeFunctionData("cast", again);
  await checked("eth_estimateGas", [{ ...request, data }]);
  await checked("eth_estimateGas", [{ from: me.address, to: other, value: "0x1" }, "latest"]);
  for (const method of ["eth_gasPrice", "eth_maxPriorityFeePerGas", "eth_blockNumber", "eth_chainId"]) await checked(method, []);
  const { blockNumber } = await call("eth_getTransactionReceipt", chain.hashes[2]);
  for (const [count, newest, percentiles] of [["0x4", "latest", []], ["0x4", blockNumber, [0, 12.5, 100]], ["0x400", "0x0", [50]]]) {
    await checked("eth_feeHistory", [count, newest, percentiles]);
  }
});

test("event logs and filters, with something in them and without", async () => {
  const { blockNumber, blockHash } = await call("eth_getTransactionReceipt", chain.cast);
  const none = { ...filter, topics: [ABSENT] };
  assert.ok((await checked("eth_getLogs", [filter], "TIMESTAMP")).length >= 2);
  await checked("eth_getLogs", [{ blockHash }], "TIMESTAMP");
  await checked("eth_getLogs", [none], "EMPTY");
  const ids = {
    logs: await checked("eth_newFilter", [filter]),
    none: await checked("eth_newFilter", [none]),
    blocks: await checked("eth_newBlockFilter", []),
    waiting: await checked("eth_newPendingTransactionFilter", []),
  };
  await checked("eth_getFilterLogs", [ids.logs], "TIMESTAMP");
  await checked("eth_getFilterLogs", [ids.none], "EMPTY");
  await checked("eth_getFilterChanges", [ids.none], "EMPTY");
  const id = fresh();
  await (await elections.create(id, "Filtered", ["a", "b"], 3, 0, 0, 0, [], word(0))).wait();
  for (const [kind, ...differences] of [["logs", "TIMESTAMP"], ["blocks"], ["waiting"]]) {
    assert.ok((await checked("eth_getFilterChanges", [ids[kind]], ...differences)).length > 0, `${kind} of block ${blockNumber} on`);
  }
  for (const one of Object.values(ids)) assert.equal(await checked("eth_uninstallFilter", [one]), true);
  assert.equal(await checked("eth_uninstallFilter", [ids.logs]), false);
});

test("subscriptions over WebSocket, and what the node says of itself", async () => {
  for (const params of [["newHeads"], ["logs", filter], ["newPendingTransactions"], ["syncing"]]) {
    const id = await socket.send("eth_subscribe", params);
    check("eth_subscribe", id, params);
    const gone = await socket.send("eth_unsubscribe", [id]);
    check("eth_unsubscribe", gone, [id]);
    assert.equal(gone, true);
  }
  check("eth_unsubscribe", await socket.send("eth_unsubscribe", ["0x1"]), ["0x1"]);
  await checked("eth_syncing", []);
  await checked("web3_clientVersion", []);
});

/** The schema of what a subscription tells: the document has none, but it has the parts. */
function told(kind) {
  const document = structuredClone(SPECIFICATION);
  const { schemas } = document.components;
  const header = structuredClone(schemas.Block);
  for (const name of ["transactions", "uncles", "size", "withdrawals"]) {
    delete header.properties[name]; // a header has no body
    header.required = header.required.filter((one) => one !== name);
  }
  DIFFERENCES.TIMESTAMP.allow(schemas);
  const schema = { newHeads: header, logs: ref("Log"), newPendingTransactions: ref("hash32") }[kind];
  return new Ajv({ strict: false, allErrors: true }).compile({ components: document.components, allOf: [schema] });
}

test("what subscriptions tell: headers, event logs and hashes, each as the document's parts say", async () => {
  const kinds = ["newHeads", "logs", "newPendingTransactions"];
  const raw = [];
  const listen = socket.websocket.onmessage;
  socket.websocket.onmessage = (message) => {
    raw.push(JSON.parse(message.data));
    listen(message);
  };
  const ids = {};
  for (const kind of kinds) ids[kind] = await socket.send("eth_subscribe", kind === "logs" ? [kind, { address: filter.address }] : [kind]);
  const of = (kind) => raw.filter(({ params }) => params?.subscription === ids[kind]);
  await (await elections.create(fresh(), "Told", ["a", "b"], 3, 0, 0, 0, [], word(0))).wait();
  for (const kind of kinds) {
    await until(() => of(kind).length > 0, `${kind} tells something`);
    const meets = told(kind);
    for (const { jsonrpc, method, params, ...rest } of of(kind)) {
      assert.deepEqual([jsonrpc, method, Object.keys(rest)], ["2.0", "eth_subscription", []]);
      assert.ok(meets(params.result), `${kind} ${JSON.stringify(params.result)}\n${JSON.stringify(meets.errors, null, 1)}`);
      assert.ok(!meets(kind === "newPendingTransactions" ? "0x1" : { ...params.result, blockNumber: 1, number: 1 }));
    }
    await socket.send("eth_unsubscribe", [ids[kind]]);
  }
  socket.websocket.onmessage = listen;
});

test("the schemas refuse what is wrong: a field that is missing, unknown or not canonical", async () => {
  const { blockNumber, logs } = await call("eth_getTransactionReceipt", chain.cast);
  const answers = [
    ["eth_getBlockByNumber", [blockNumber, false], "parentHash", "gasUsed"],
    ["eth_getTransactionReceipt", [chain.hashes[0]], "effectiveGasPrice", "gasUsed"],
    ["eth_getProof", [me.address, ["0x0"], "latest"], "storageHash", "balance"],
    ["eth_feeHistory", ["0x1", "latest", []], "gasUsedRatio", "oldestBlock"],
    ["eth_getTransactionByHash", [chain.hashes[1]], "accessList", "value"],
  ];
  for (const [method, params, required, quantity] of answers) {
    const good = await call(method, ...params);
    const meets = validator(method, []);
    assert.ok(meets(good));
    const { [required]: _, ...missing } = good;
    assert.ok(!meets(missing), `${method} without ${required}`);
    assert.ok(!meets({ ...good, [quantity]: "0x01" }), `${method} with a leading zero in ${quantity}`);
    assert.ok(!meets({ ...good, [quantity]: 1 }), `${method} with a number as ${quantity}`);
    // Of transactions the document says nothing about fields that it does not know.
    assert.equal(meets({ ...good, wrong: "0x1" }), method === "eth_getTransactionByHash", `${method} with an unknown field`);
  }
  assert.ok(validator("eth_getLogs", ["TIMESTAMP"])(logs));
  assert.ok(!validator("eth_getLogs", ["TIMESTAMP"])([{ ...logs[0], topics: ["0x1"] }]));
});

test("every method of the document was called, or is lacking for a reason; no reason is left without a difference", async (t) => {
  const named = SPECIFICATION.methods.map(({ name }) => name);
  for (const name of Object.keys(LACKING)) {
    assert.ok(named.includes(name), `${name} is no method of the document`);
    assert.equal((await ask(name)).error?.code, -32601, `the node has ${name} after all`);
  }
  const expected = [...named.filter((name) => !(name in LACKING)), ...Object.keys(LEFT_OUT)];
  assert.deepEqual([...tried].sort(), expected.sort());
  assert.deepEqual([...needed].sort(), Object.keys(DIFFERENCES).sort());
  assert.deepEqual(Object.keys(LEFT_OUT).filter((name) => named.includes(name)), [], "left out of the document no longer");
  t.diagnostic(`${tried.size} methods met their schemas; ${Object.keys(LACKING).length} are lacking`);
});
