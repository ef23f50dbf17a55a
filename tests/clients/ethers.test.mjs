// ethers 6 as it comes: reads, every transaction type, contracts, custom errors, event logs, subscriptions.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Contract, JsonRpcProvider, NonceManager, Transaction, Wallet, WebSocketProvider, getAddress } from "ethers";
import { account, call, contracts, fresh, until, url, word, wsUrl } from "./network.mjs";

// Without its cache of 250 ms: a nonce asked for after a receipt is another one, and blocks here take a tenth of a second.
const provider = new JsonRpcProvider(url, undefined, { pollingInterval: 50, cacheTimeout: -1 });
const wallet = new Wallet(account(10).privateKey, provider);
const other = account(11).address;
const elections = new Contract(contracts.Elections.address, contracts.Elections.abi, wallet);
let socket;

before(async () => {
  socket = new WebSocketProvider(wsUrl);
  await socket.ready;
});
after(async () => {
  provider.destroy();
  await socket?.destroy();
});

test("every field of a block and of its transactions is read, and the hash recomputed", async () => {
  const sent = await wallet.sendTransaction({ to: other, value: 7n });
  const receipt = await sent.wait();
  assert.equal(receipt.status, 1);
  const block = await provider.getBlock(receipt.blockNumber, true);
  assert.equal(block.hash, receipt.blockHash);
  assert.equal(block.baseFeePerGas, 0n);
  assert.equal(block.prefetchedTransactions.length, block.transactions.length);
  const found = block.getPrefetchedTransaction(sent.hash);
  assert.equal(found.from, wallet.address);
  assert.equal(found.value, 7n);
  const raw = await call("debug_getRawTransaction", sent.hash);
  assert.equal(Transaction.from(raw).hash, sent.hash);
  assert.equal(Transaction.from(raw).from, wallet.address);
  assert.equal((await provider.getNetwork()).chainId, block.provider._network.chainId);
  assert.equal(await provider.getBlock(10 ** 9), null);
  assert.equal(await provider.getTransaction(word(1)), null);
  assert.equal(await provider.getTransactionReceipt(word(1)), null);
});

test("a fee of 0 is read as 'no EIP-1559', and transactions of every type are final all the same", async () => {
  const fees = await provider.getFeeData();
  assert.equal(fees.gasPrice, 0n);
  const free = { maxFeePerGas: 0n, maxPriorityFeePerGas: 0n };
  const kinds = [
    [{}, undefined],
    [{ type: 0, gasPrice: 0n }, 0],
    [{ type: 1, gasPrice: 0n, accessList: [{ address: other, storageKeys: [word(3)] }] }, 1],
    [{ type: 2, ...free }, 2],
    [{ type: 2, maxFeePerGas: 5n, maxPriorityFeePerGas: 2n }, 2],
  ];
  for (const [fields, type] of kinds) {
    const receipt = await (await wallet.sendTransaction({ to: other, value: 1n, ...fields })).wait();
    assert.equal(receipt.status, 1);
    if (type !== undefined) assert.equal(receipt.type, type);
    assert.equal(receipt.gasPrice, fields.maxPriorityFeePerGas ?? 0n);
  }
});

test("a contract: create, cast, count, filter, and a named refusal", async () => {
  const id = fresh();
  const created = await (await elections.create(id, "Lunch", ["soup", "salad"], 3, 0, 0, 60, [wallet.address], word(0))).wait();
  assert.equal(created.logs[0].fragment.name, "ElectionCreated");
  const nullifier = word(fresh());
  const cast = await (await elections.cast(id, nullifier, word(fresh()), 0, "0x01")).wait();
  const [counts, sealed, total] = await elections.tally(id);
  assert.deepEqual([...counts, sealed, total], [0n, 1n, 0n, 1n]);
  assert.equal((await elections.tally(id, { blockTag: cast.blockNumber - 1 }))[2], 0n);
  const events = await elections.queryFilter(elections.filters.BallotsCast(id), created.blockNumber);
  assert.equal(events.length, 1);
  assert.equal(events[0].args.count, 1n);
  assert.equal((await elections.queryFilter(elections.filters.BallotsCast(id + 1n), created.blockNumber)).length, 0);
  await assert.rejects(elections.cast.staticCall(id, nullifier, word(fresh()), 0, "0x00"), (error) => {
    assert.equal(error.code, "CALL_EXCEPTION");
    assert.equal(error.revert.name, "AlreadyCast");
    assert.equal(error.revert.args[0], nullifier);
    return true;
  });
  await assert.rejects(elections.cast(id, nullifier, word(fresh()), 0, "0x00"), { code: "CALL_EXCEPTION" });
});

test("estimates are exact", async () => {
  const id = fresh();
  const request = await elections.create.populateTransaction(id, "Gas", ["a", "b"], 3, 0, 0, 0, [], word(0));
  const estimate = await wallet.estimateGas(request);
  const receipt = await (await wallet.sendTransaction({ ...request, gasLimit: estimate })).wait();
  assert.equal(receipt.gasUsed, estimate);
});

test("errors carry the codes that ethers looks for", async () => {
  const nonce = await wallet.getNonce();
  await assert.rejects(wallet.sendTransaction({ to: other, nonce: nonce - 1, gasLimit: 21000n }), { code: "NONCE_EXPIRED" });
  const poor = Wallet.createRandom(provider);
  await assert.rejects(poor.sendTransaction({ to: other, value: 1n, gasLimit: 21000n }), { code: "INSUFFICIENT_FUNDS" });
});

test("the node signs for a development network's accounts", async () => {
  const signer = await provider.getSigner(12);
  assert.equal(await signer.getAddress(), getAddress(account(12).address));
  const sent = await signer.sendTransaction({ to: other, value: 3n });
  assert.equal((await sent.wait()).from, account(12).address);
  const text = "tö sign";
  assert.equal(await signer.signMessage(text), await account(12).signMessage(text));
  const types = { Note: [{ name: "text", type: "string" }, { name: "tags", type: "bytes32[]" }] };
  const value = { text: "hello", tags: [word(1), word(2)] };
  const domain = { name: "Psephos", chainId: 1 };
  const signature = await provider.send("eth_signTypedData", [
    account(12).address,
    {
      types: { EIP712Domain: [{ name: "name", type: "string" }, { name: "chainId", type: "uint256" }], ...types },
      primaryType: "Note", domain, message: value,
    },
  ]);
  assert.equal(signature, await account(12).signTypedData(domain, types, value));
});

test("over WebSocket: blocks, event logs and waiting transactions are told", async () => {
  const blocks = [];
  const waiting = [];
  const casts = [];
  const listening = new Contract(contracts.Elections.address, contracts.Elections.abi, socket);
  const id = fresh();
  await socket.on("block", (number) => blocks.push(number));
  await socket.on("pending", (hash) => waiting.push(hash));
  await listening.on(listening.filters.BallotsCast(id), (...args) => casts.push(args.at(-1)));
  const sender = new NonceManager(new Wallet(account(13).privateKey, socket));
  const writing = listening.connect(sender);
  const create = await writing.create(id, "Told", ["a", "b"], 3, 0, 0, 0, [account(13).address], word(0));
  await create.wait();
  const cast = await writing.cast(id, word(fresh()), word(fresh()), 0, "0x00");
  const receipt = await cast.wait();
  await until(() => casts.length === 1 && waiting.includes(cast.hash) && blocks.includes(receipt.blockNumber), "all told");
  assert.equal(casts[0].log.transactionHash, cast.hash);
  assert.deepEqual(blocks, [...blocks].sort((a, b) => a - b));
});
