// cast, Foundry's command line: block, tx, receipt, logs, call, send, rpc, proof.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { promisify } from "node:util";
import { account, contracts, fresh, jwtSecret, operatorsUrl, url, word } from "./network.mjs";

const run = promisify(execFile);
const binary = fileURLToPath(new URL("node_modules/.bin/cast", import.meta.url));
const elections = contracts.Elections.address;
const me = account(30);

/** What cast prints; a failure of cast is an exception that carries its words. */
async function cast(...args) {
  const { stdout } = await run(binary, [...args, "--rpc-url", url], { timeout: 120_000, maxBuffer: 64 << 20 });
  return stdout.trim();
}

/** The same on the operators' listener, for which cast makes a token of its own. */
async function operate(...args) {
  const env = { ...process.env, ETH_RPC_JWT_SECRET: jwtSecret }; // never among arguments, which every user can list
  const { stdout } = await run(binary, [...args, "--rpc-url", operatorsUrl], { timeout: 120_000, env });
  return stdout.trim();
}

const json = async (...args) => JSON.parse(await cast(...args, "--json"));
const sign = ["--private-key", me.privateKey];

test("chain, blocks, balances", async () => {
  assert.match(await cast("client"), /^psephos\//);
  assert.ok(Number(await cast("chain-id")) > 0);
  const height = Number(await cast("block-number"));
  const block = await json("block", String(height));
  assert.equal(Number(block.number), height);
  assert.equal(await cast("balance", account(39).address), String(10n ** 24n));
  assert.equal(await cast("gas-price"), "0");
  assert.match(await cast("age"), /\d/);
});

test("send, tx, receipt; with a key, as a legacy transaction, and signed by the node", async () => {
  for (const extra of [sign, [...sign, "--legacy"], ["--unlocked", "--from", me.address]]) {
    const receipt = await json("send", account(31).address, "--value", "3", ...extra);
    assert.equal(receipt.status, "0x1");
    const transaction = await json("tx", receipt.transactionHash);
    assert.equal(BigInt(transaction.value), 3n);
    assert.equal((await json("receipt", receipt.transactionHash)).blockHash, receipt.blockHash);
  }
});

test("a contract: send, call, estimate, logs, and a refusal", async () => {
  const id = String(fresh());
  const create = "create(uint256,string,string[],uint8,uint64,uint64,uint32,address[],bytes32)";
  const args = [id, "Lunch", '["soup","salad"]', "3", "0", "0", "60", `[${me.address}]`, word(0)];
  const created = await json("send", elections, create, ...args, ...sign);
  const nullifier = word(fresh());
  const ballot = ["cast(uint256,bytes32,bytes32,uint8,bytes)", id, nullifier, word(fresh()), "0", "0x01"];
  const estimate = await cast("estimate", "--from", me.address, elections, ...ballot);
  const sent = await json("send", elections, ...ballot, ...sign);
  assert.equal(BigInt(sent.gasUsed), BigInt(estimate));
  assert.match(await cast("call", elections, "tally(uint256)(uint256[],uint256,uint256)", id), /\[0, 1\]\n0\n1/);
  const from = String(Number(created.blockNumber));
  const event = "BallotsCast(uint256 indexed,uint256,uint256,bytes)";
  const logs = await json("logs", "--from-block", from, "--address", elections, event, id);
  assert.equal(logs.length, 1);
  assert.equal(logs[0].transactionHash, sent.transactionHash);
  const other = [...ballot.slice(0, -3), word(fresh()), "0", "0x00"];
  await assert.rejects(cast("call", "--from", me.address, elections, ...other), /AlreadyCast/);
});

test("rpc, proof, storage, code", async () => {
  assert.equal(JSON.parse(await cast("rpc", "poa_status")).validator, true);
  const proof = JSON.parse(await cast("proof", elections, "0x0"));
  assert.equal(proof.address.toLowerCase(), elections);
  assert.ok(proof.accountProof.length > 0);
  assert.match(await cast("storage", elections, "0"), /^0x[0-9a-f]{64}$/);
  assert.match(await cast("code", elections), /^0xfe/);
  assert.match(await cast("nonce", me.address), /^\d+$/);
});

test("operators' methods, with a token that cast makes; not without one, and not in public", async () => {
  assert.equal(await operate("chain-id"), await cast("chain-id"));
  assert.deepEqual(JSON.parse(await operate("rpc", "txpool_status")), { pending: "0x0", queued: "0x0" });
  assert.match(await operate("rpc", "debug_getRawHeader", "0x1"), /^"0xf9/);
  assert.equal(JSON.parse(await operate("rpc", "admin_peers")).length >= 2, true);
  await assert.rejects(run(binary, ["chain-id", "--rpc-url", operatorsUrl]), /401|missing token/);
  await assert.rejects(cast("rpc", "txpool_status"), /-32601.*operators/s);
});
