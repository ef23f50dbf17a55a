// viem 2 as it comes: reads, sends, simulations with custom errors, event logs, watching over HTTP and WebSocket.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  BaseError, ContractFunctionRevertedError, createPublicClient, createTestClient, createWalletClient, defineChain,
  getAddress, http, keccak256, parseAbiItem, serializeTransaction, webSocket,
} from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { account, call, contracts, fresh, operatorsUrl, token, until, url, word, wsUrl } from "./network.mjs";

const chain = defineChain({
  id: Number(await call("eth_chainId")),
  name: "Psephos",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [url], webSocket: [wsUrl] } },
});
const client = createPublicClient({ chain, transport: http(), pollingInterval: 50 });
const me = privateKeyToAccount(account(20).privateKey);
const wallet = createWalletClient({ account: me, chain, transport: http() });
const other = account(21).address;
const elections = { address: getAddress(contracts.Elections.address), abi: contracts.Elections.abi };

const mined = async (hash) => client.waitForTransactionReceipt({ hash });

test("it connects and reads every field", async () => {
  assert.equal(await client.getChainId(), chain.id);
  const receipt = await mined(await wallet.sendTransaction({ to: other, value: 5n }));
  assert.equal(receipt.status, "success");
  const block = await client.getBlock({ blockNumber: receipt.blockNumber, includeTransactions: true });
  assert.equal(block.hash, receipt.blockHash);
  assert.equal(block.baseFeePerGas, 0n);
  const transaction = block.transactions.find(({ hash }) => hash === receipt.transactionHash);
  assert.equal(transaction.type, "eip1559");
  const { r, s, yParity, gas, input, nonce, value, to, maxFeePerGas, maxPriorityFeePerGas, chainId } = transaction;
  const fields = { type: "eip1559", chainId, nonce, to, value, gas, data: input, maxFeePerGas, maxPriorityFeePerGas };
  assert.equal(keccak256(serializeTransaction(fields, { r, s, yParity })), transaction.hash);
  assert.deepEqual(await client.getTransaction({ blockHash: block.hash, index: transaction.transactionIndex }), transaction);
  assert.equal(await client.getBlockTransactionCount({ blockHash: block.hash }), block.transactions.length);
  assert.equal(await client.getBalance({ address: other, blockNumber: 0n }), 10n ** 24n);
  assert.ok((await client.getFeeHistory({ blockCount: 4, rewardPercentiles: [50] })).baseFeePerGas.length >= 2);
  assert.equal(await client.getGasPrice(), 0n);
  await assert.rejects(client.getBlock({ blockNumber: 10n ** 9n }), { name: "BlockNotFoundError" });
  await assert.rejects(client.getTransaction({ hash: word(1) }), { name: "TransactionNotFoundError" });
});

test("a contract is written, read, filtered, and refuses by name", async () => {
  const id = fresh();
  const args = [id, "Lunch", ["soup", "salad"], 3, 0n, 0n, 60, [me.address], word(0)];
  const created = await mined(await wallet.writeContract({ ...elections, functionName: "create", args }));
  const nullifier = word(fresh());
  const cast = { ...elections, functionName: "cast", args: [id, nullifier, word(fresh()), 0, "0x01"], account: me };
  const { request } = await client.simulateContract(cast);
  await mined(await wallet.writeContract(request));
  const [counts] = await client.readContract({ ...elections, functionName: "tally", args: [id] });
  assert.deepEqual(counts, [0n, 1n]);
  const before = { ...elections, functionName: "tally", args: [id], blockNumber: created.blockNumber };
  assert.deepEqual((await client.readContract(before))[0], [0n, 0n]);
  const events = await client.getContractEvents({
    ...elections, eventName: "BallotsCast", args: { election: id }, fromBlock: created.blockNumber,
  });
  assert.equal(events.length, 1);
  assert.equal(events[0].args.count, 1n);
  const again = { ...cast, args: [id, nullifier, word(fresh()), 0, "0x00"] };
  await assert.rejects(client.simulateContract(again), (error) => {
    assert.ok(error instanceof BaseError);
    const revert = error.walk((cause) => cause instanceof ContractFunctionRevertedError);
    assert.equal(revert.data.errorName, "AlreadyCast");
    assert.equal(revert.data.args[0], nullifier);
    return true;
  });
});

test("errors are told apart", async () => {
  const nonce = await client.getTransactionCount({ address: me.address });
  const low = wallet.sendTransaction({ to: other, nonce: nonce - 1, gas: 21000n });
  await assert.rejects(low, (error) => Boolean(error.walk(({ name }) => name === "NonceTooLowError")));
  const poor = privateKeyToAccount(word(fresh()));
  const broke = wallet.sendTransaction({ account: poor, to: other, value: 1n, gas: 21000n });
  await assert.rejects(broke, (error) => Boolean(error.walk(({ name }) => name === "InsufficientFundsError")));
});

test("filters are polled over HTTP, and a proof is asked for", async () => {
  const filter = await client.createEventFilter({
    address: elections.address, event: parseAbiItem("event ElectionCreated(uint256 indexed election, address indexed creator, string title)"),
  });
  const id = fresh();
  const args = [id, "Filtered", ["a", "b"], 3, 0n, 0n, 60, [], word(0)];
  await mined(await wallet.writeContract({ ...elections, functionName: "create", args }));
  const changes = await client.getFilterChanges({ filter });
  assert.ok(changes.some((log) => log.args.election === id));
  assert.equal(await client.uninstallFilter({ filter }), true);
  const proof = await client.getProof({ address: elections.address, storageKeys: [word(0)] });
  assert.ok(proof.accountProof.length > 0);
});

test("over WebSocket: blocks, event logs and waiting transactions are told", async () => {
  const transport = webSocket(wsUrl);
  const listening = createPublicClient({ chain, transport });
  const heads = [];
  const hashes = [];
  const logs = [];
  const id = fresh();
  const stops = [
    listening.watchBlocks({ onBlock: (block) => heads.push(block.number) }),
    listening.watchPendingTransactions({ onTransactions: (found) => hashes.push(...found) }),
    listening.watchContractEvent({ ...elections, eventName: "ElectionCreated", args: { election: id }, onLogs: (found) => logs.push(...found) }),
  ];
  try {
    // Subscriptions are made in the background: the first block that is told of proves that they stand.
    await until(() => heads.length > 0, "a first block");
    const args = [id, "Watched", ["a", "b"], 3, 0n, 0n, 60, [], word(0)];
    const hash = await wallet.writeContract({ ...elections, functionName: "create", args });
    const receipt = await mined(hash);
    await until(() => logs.length === 1 && hashes.includes(hash) && heads.includes(receipt.blockNumber), "all told");
    assert.equal(logs[0].transactionHash, hash);
  } finally {
    for (const stop of stops) stop();
    (await listening.transport.getRpcClient()).close();
  }
});

test("its test client reads the mempool, and the node signs for its accounts", async () => {
  const fetchOptions = { headers: { authorization: `Bearer ${token()}` } };
  const local = createTestClient({ chain, mode: "anvil", transport: http(operatorsUrl, { fetchOptions }) });
  const status = await local.getTxpoolStatus();
  assert.equal(typeof status.pending, "number");
  const unlocked = createWalletClient({ chain, transport: http() });
  const addresses = await unlocked.getAddresses();
  assert.equal(addresses[22], getAddress(account(22).address));
  const hash = await unlocked.sendTransaction({ account: addresses[22], to: other, value: 1n });
  assert.equal((await mined(hash)).from, account(22).address.toLowerCase());
});
