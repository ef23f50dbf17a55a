// @ethereumjs re-verifies the chain: every header, transactions root, sender, receipts root and proof.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createBlockFromRLP, createBlockFromRPC } from "@ethereumjs/block";
import { Hardfork, Mainnet, createCustomCommon } from "@ethereumjs/common";
import { MerklePatriciaTrie, verifyMPTWithMerkleProof } from "@ethereumjs/mpt";
import { RLP } from "@ethereumjs/rlp";
import {
  KECCAK256_RLP, bytesToHex, concatBytes, createAccountFromRLP, hexToBytes, intToBytes, setLengthLeft,
} from "@ethereumjs/util";
import { account, call, contracts, word } from "./network.mjs";

const chainId = Number(await call("eth_chainId"));
const common = createCustomCommon({ chainId, name: "psephos" }, Mainnet, { hardfork: Hardfork.London });
const EMPTY = bytesToHex(KECCAK256_RLP);
const bytes = (hex) => hexToBytes(hex.length % 2 ? `0x0${hex.slice(2)}` : hex);
const number = (hex) => (BigInt(hex) === 0n ? new Uint8Array() : bytes(hex));

/** A receipt as consensus hashes it, from its JSON alone. */
function encodeReceipt(receipt) {
  const logs = receipt.logs.map((log) => [bytes(log.address), log.topics.map(bytes), bytes(log.data)]);
  const body = RLP.encode([number(receipt.status), number(receipt.cumulativeGasUsed), bytes(receipt.logsBloom), logs]);
  return receipt.type === "0x0" ? body : concatBytes(bytes(receipt.type.length % 2 ? `0x0${receipt.type.slice(2)}` : receipt.type), body);
}

async function receiptsRoot(receipts) {
  const trie = new MerklePatriciaTrie();
  for (const [index, receipt] of receipts.entries()) {
    await trie.put(RLP.encode(index === 0 ? new Uint8Array() : intToBytes(index)), encodeReceipt(receipt));
  }
  return bytesToHex(trie.root());
}

async function verified(root, key, proof) {
  if (root === EMPTY && proof.length === 0) return null;
  const trie = new MerklePatriciaTrie({ useKeyHashing: true });
  return verifyMPTWithMerkleProof(trie, bytes(root), key, proof.map(bytes));
}

/** Check an answer of eth_getProof against a state root; whether the account is there. */
async function checkProof(answer, stateRoot) {
  const encoded = await verified(stateRoot, bytes(answer.address), answer.accountProof);
  if (encoded === null) {
    assert.deepEqual([answer.nonce, answer.balance, answer.storageHash], ["0x0", "0x0", EMPTY]);
  } else {
    const found = createAccountFromRLP(encoded);
    assert.equal(found.nonce, BigInt(answer.nonce));
    assert.equal(found.balance, BigInt(answer.balance));
    assert.equal(bytesToHex(found.storageRoot), answer.storageHash);
    assert.equal(bytesToHex(found.codeHash), answer.codeHash);
  }
  for (const slot of answer.storageProof) {
    const value = await verified(answer.storageHash, setLengthLeft(bytes(slot.key), 32), slot.proof);
    assert.equal(value === null ? 0n : BigInt(bytesToHex(RLP.decode(value))), BigInt(slot.value));
  }
  return encoded !== null;
}

test("every block of the chain", { timeout: 240_000 }, async (t) => {
  const head = Number(await call("eth_blockNumber"));
  let parent = null;
  let transactions = 0;
  for (let height = 0; height <= head; height++) {
    const [json, raw, header, receipts] = await Promise.all([
      call("eth_getBlockByNumber", "0x" + height.toString(16), true),
      call("debug_getRawBlock", "0x" + height.toString(16)),
      call("debug_getRawHeader", "0x" + height.toString(16)),
      call("eth_getBlockReceipts", "0x" + height.toString(16)),
    ]);
    const block = createBlockFromRPC(json, [], { common });
    assert.equal(bytesToHex(block.hash()), json.hash);
    assert.equal(bytesToHex(createBlockFromRLP(bytes(raw), { common }).hash()), json.hash);
    assert.equal(bytesToHex(block.header.serialize()), header);
    assert.equal(json.size, "0x" + ((raw.length - 2) / 2).toString(16));
    assert.ok(await block.transactionsTrieIsValid());
    assert.ok(block.uncleHashIsValid());
    for (const [index, transaction] of block.transactions.entries()) {
      assert.equal(transaction.getSenderAddress().toString(), json.transactions[index].from);
      assert.equal(bytesToHex(transaction.hash()), json.transactions[index].hash);
      assert.equal(receipts[index].transactionHash, json.transactions[index].hash);
    }
    assert.equal(await receiptsRoot(receipts), json.receiptsRoot);
    if (parent !== null) assert.equal(json.parentHash, parent);
    parent = json.hash;
    transactions += receipts.length;
  }
  assert.ok(transactions >= Number(process.env.PSEPHOS_TRANSACTIONS_MIN ?? 1), `only ${transactions} transactions`);
  t.diagnostic(`${head + 1} blocks with ${transactions} transactions verified`);
});

test("proofs of accounts and slots, present and absent, at the head and at past heights", async () => {
  const head = Number(await call("eth_blockNumber"));
  const present = [account(0).address, ...Object.values(contracts).map(({ address }) => address)];
  const absent = ["0x00000000000000000000000000000000deadbeef", "0x" + "ff".repeat(20)];
  const slots = [word(0), word(1), word(2), word(3), word(2n ** 256n - 1n), word(12345)];
  let nonzero = 0;
  for (const height of new Set([0, 1, head >> 1, head])) {
    const tag = "0x" + height.toString(16);
    const { stateRoot } = await call("eth_getBlockByNumber", tag, false);
    for (const address of present) {
      const answer = await call("eth_getProof", address, slots, tag);
      assert.ok(await checkProof(answer, stateRoot));
      nonzero += answer.storageProof.filter(({ value }) => value !== "0x0").length;
    }
    for (const address of absent) {
      assert.equal(await checkProof(await call("eth_getProof", address, slots, tag), stateRoot), false);
    }
  }
  assert.ok(nonzero > 0, "no slot of any contract holds anything");
});

test("a proof that was tampered with is refused", async () => {
  const { stateRoot } = await call("eth_getBlockByNumber", "latest", false);
  const answer = await call("eth_getProof", account(0).address, [], "latest");
  const [first, ...rest] = answer.accountProof;
  const flipped = first.slice(0, -1) + (first.endsWith("0") ? "1" : "0");
  await assert.rejects(checkProof({ ...answer, accountProof: [flipped, ...rest] }, stateRoot));
});
