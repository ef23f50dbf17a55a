// Checks a Psephos receipt with nothing of ours: ethers for keccak, RLP and secp256k1, @ethereumjs for the state trie.
//
//     npm ci && node verify.mjs receipt.json 0xGENESIS_HASH [0xCHECKPOINT_HASH]
//
// GENESIS_HASH is all that you trust: take it from where the network's operators publish it, not from the receipt.
// A quorum of any past set of validators could forge what comes after it. If you know the hash of a block from
// elsewhere (a newspaper, another chain), name it as the checkpoint: then that cannot happen before that block.

import { readFileSync } from 'node:fs'
import { verifyMerkleProof } from '@ethereumjs/mpt'
import { concat, decodeRlp, dataLength, encodeRlp, getBytes, hexlify, keccak256, recoverAddress, sha256, toBeArray, toBeHex,
  toUtf8Bytes } from 'ethers'

const [file, genesisHash, checkpoint] = process.argv.slice(2)
const receipt = JSON.parse(readFileSync(file, 'utf8'))
const { chainId, log, state, record } = receipt

function must(holds, what) {
  if (!holds) throw new Error(what)
}
const integer = (value) => hexlify(toBeArray(value)) // RLP's integers: no leading zeros, 0 is empty
const word = (value) => toBeHex(value, 32)
const bytes = (list) => list.map((item) => getBytes(item))

// A London header: its hash is the keccak of all sixteen fields, and extraData commits to the next validators.
function decodeHeader(rlp) {
  const fields = decodeRlp(rlp)
  must(fields.length === 16, 'a header has sixteen fields')
  return { hash: keccak256(rlp), miner: fields[2], stateRoot: fields[3], number: Number(fields[8] === '0x' ? 0 : fields[8]),
    extraData: fields[12] }
}

// A block is final when a quorum of the validators of its height has signed its hash.
function checkSeals(header, certificate, validators) {
  const { round, seals } = certificate
  const count = validators.length
  const statement = ['0x03', integer(chainId), genesisHash, integer(header.number), integer(round), header.hash]
  const digest = keccak256(concat(['0x19', toUtf8Bytes('psephos'), encodeRlp(statement)]))
  const signers = seals.map((seal) => {
    must(dataLength(seal) === 65 && getBytes(seal)[64] < 2, 'a seal is r, s and the parity of y')
    return recoverAddress(digest, seal).toLowerCase()
  })
  must(new Set(signers).size === signers.length, `a validator sealed block ${header.number} twice`)
  must(signers.every((signer) => validators.includes(signer)), `a stranger sealed block ${header.number}`)
  must(signers.length * 3 >= 2 * count, `block ${header.number} has ${signers.length} seals of ${count} validators`)
  const turn = (validators.indexOf(header.miner) - (header.number % count) + count) % count
  must(validators.includes(header.miner) && turn <= round, `the miner of block ${header.number} was no proposer`)
}

// 1. From block 0, which is trusted, over every change of the validators, to those who decided the receipt's block.
must(receipt.format === 'psephos-receipt' && receipt.version === 1, 'this is no receipt of version 1')
must(receipt.genesisHash === genesisHash, 'the receipt belongs to another network')
const block = decodeHeader(receipt.block.header)
const named = [block.hash]
let validators = []
let height = -1
for (const set of receipt.validatorSets) {
  const header = decodeHeader(set.header)
  must(height < header.number && header.number < block.number, 'the sets of validators are out of order')
  if (height < 0) must(header.hash === genesisHash, 'the first header is not that of block 0')
  else checkSeals(header, set.certificate, validators)
  must(set.validators.every((address) => dataLength(address) === 20), 'an address has 20 bytes')
  must(keccak256(concat(set.validators)) === header.extraData, `block ${header.number} names other validators`)
  ;({ number: height } = header)
  ;({ validators } = set)
  named.push(header.hash)
}
must(validators.length > 0, 'the receipt names no validators')
checkSeals(block, receipt.block.certificate, validators)
must(!checkpoint || named.includes(checkpoint), 'nothing ties the receipt to the checkpoint')
console.log(`block ${block.number} is final: ${block.hash}`)

// 2. The log's size and root are in two storage slots of its contract, in the state of that block.
const anchors = log.of === 'anchors'
const contract = concat([toUtf8Bytes('psephos'), new Uint8Array(12), anchors ? '0x02' : '0x01'])
const base = anchors ? 0n : BigInt(keccak256(concat([word(BigInt(log.election)), word(1)])))
const options = { useKeyHashing: true }
const account = await verifyMerkleProof(getBytes(contract), bytes(state.accountProof), { ...options, root: getBytes(block.stateRoot) })
const storageRoot = getBytes(decodeRlp(account)[2])
for (const [offset, expected] of [BigInt(log.size), BigInt(log.root)].entries()) {
  const slot = getBytes(word(base + BigInt(offset)))
  const { proof } = state.storageProof[offset]
  const value = await verifyMerkleProof(slot, bytes(proof), { ...options, root: storageRoot })
  must((value === null ? 0n : BigInt(decodeRlp(value))) === expected, 'size or root of the log are not those of the state')
}
console.log(`the log of ${anchors ? 'anchors' : `election ${log.election}`} has ${log.size} entries, root ${log.root}`)

// 3. The entry is in the log (RFC 9162, 2.1.3.2), and its leaf is the record.
let [fn, sn, hash, left] = [BigInt(log.index), BigInt(log.size) - 1n, log.leafHash, log.inclusionProof.length]
must(fn <= sn, 'the index is outside the log')
for (const sibling of log.inclusionProof) {
  must(sn > 0n && dataLength(sibling) === 32, 'the inclusion proof is too long')
  const right = fn % 2n === 1n || fn === sn
  hash = sha256(right ? concat(['0x01', sibling, hash]) : concat(['0x01', hash, sibling]))
  while (right && fn % 2n === 0n && fn > 0n) [fn, sn] = [fn / 2n, sn / 2n]
  ;[fn, sn] = [fn / 2n, sn / 2n]
}
must(sn === 0n && hash === log.root && dataLength(log.leafHash) === 32, 'the inclusion proof does not lead to the root')
console.log(`entry ${log.index} of it has the leaf hash ${log.leafHash}`)

if (record) {
  const length = (data) => toBeHex(dataLength(data), 4)
  const text = anchors ? hexlify(toUtf8Bytes(record.algorithm)) : record.content
  const parts = anchors
    ? ['0x02', record.batchId, record.merkleRoot, toBeHex(BigInt(record.leafCount), 8)]
    : ['0x01', word(BigInt(log.election)), record.nullifier, record.recordId, record.kind === 'open' ? '0x00' : '0x01']
  const leaf = concat(['0x01', toBeHex(chainId, 8), genesisHash, ...parts, length(text), text])
  must(sha256(concat(['0x00', leaf])) === log.leafHash, 'the record is not that entry')
  console.log('that entry is this record:', JSON.stringify(record))
}
console.log('the receipt holds')
