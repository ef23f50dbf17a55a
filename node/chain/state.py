"""The ledger's state: Ethereum accounts and storage in tries, flat records beside them, changed through a journal."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from merkle import patricia, rlp
from merkle.keccak import keccak256
from node.chain import keyspace
from node.chain.errors import LedgerError
from node.chain.stored import block_key, unpack_stored
from node.chain.transaction import decode_transaction

EMPTY_CODE_HASH = keccak256(b"")
_WORD_MAX = (1 << 256) - 1
_ABSENT: Any = object()  # what the journal notes for a key that was not there
_ADDED: Any = object()  # and for many of them


class Reader(Protocol):
    """A view of the database that does not change while it is used."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key of `node.chain.keyspace`, or None."""


class Account(NamedTuple):
    """An account (yellow paper 4.1). `balance` is in wei; the hashes have 32 bytes."""

    nonce: int
    balance: int
    storage_root: bytes
    code_hash: bytes

    def encoded(self) -> bytes:
        """The RLP that is the account's value in the state trie."""
        numbers = (rlp.encode_int(self.nonce), rlp.encode_int(self.balance))
        return rlp.encode([*numbers, self.storage_root, self.code_hash])


EMPTY_ACCOUNT = Account(0, 0, patricia.EMPTY_ROOT, EMPTY_CODE_HASH)


class Values(NamedTuple):
    """Accounts, and slots by address and number, as they are after one block."""

    accounts: dict[bytes, Account]
    slots: dict[tuple[bytes, int], int]

    def then(self, changed: "Values") -> "Values":
        """The same one block later, which has `changed` these."""
        return Values(self.accounts | changed.accounts, self.slots | changed.slots)


def decode_account(data: bytes) -> Account:
    """The account of its RLP. Raises rlp.RlpError."""
    fields = rlp.decode(data)
    if not isinstance(fields, list) or len(fields) != 4:
        raise rlp.RlpError("an account is [nonce, balance, storage root, code hash]")
    nonce, balance, storage_root, code_hash = fields
    if not (isinstance(storage_root, bytes) and isinstance(code_hash, bytes)):
        raise rlp.RlpError("an account's storage root and code hash are byte strings")
    if len(storage_root) != 32 or len(code_hash) != 32:
        raise rlp.RlpError("an account's storage root and code hash have 32 bytes")
    return Account(rlp.decode_int(nonce, bits_max=64), rlp.decode_int(balance), storage_root, code_hash)


def slot_key(slot: int) -> bytes:
    """The key of a storage slot in its account's trie: keccak-256 of the slot as 32 bytes."""
    return keccak256(slot.to_bytes(32, "big"))


class State:
    """What the transactions of a block read and change: an overlay over one state root and the flat records.

    Nothing reaches the database but what `commit` returns. `snapshot` and `revert` undo a transaction that failed;
    they nest. Addresses have 20 bytes, balances are in wei, slots and their values are 256-bit numbers.
    """

    def __init__(self, reader: Reader, root: bytes, known: Values | None = None) -> None:
        """`root`: the state root, 32 bytes, of a block whose writes `reader` holds.

        `known`: some of what is under that root, to which everything is added that is read here.
        """
        self._reader = reader
        self._root = root
        # What was read, kept for the next reader; and what was changed, which hides it.
        self._accounts_read, self._storage_read = known or Values({}, {})
        self._accounts: dict[bytes, Account] = {}
        self._storage: dict[tuple[bytes, int], int] = {}
        self._records: dict[bytes, bytes] = {}
        self._codes: dict[bytes, bytes] = {}
        self._journal: list[tuple[dict[Any, Any], Any, Any]] = []
        self._block_read: tuple[int, list[bytes]] = (-1, [])  # the last one that `calldata` has read, with its height
        self._calldata_read: tuple[int, int, bytes] = (-1, -1, b"")
        self.block_bytes_read = 0  # by `calldata`
        self.changed = Values({}, {})  # by all this, since `commit`

    # Accounts

    def account(self, address: bytes) -> Account:
        """The account at `address`; EMPTY_ACCOUNT where there is none. Its storage root is the one before changes."""
        changed = self._accounts.get(address)
        return self._account_read(address) if changed is None else changed

    def exists(self, address: bytes) -> bool:
        """Whether there is an account that is not empty (EIP-161: no nonce, no balance, no code)."""
        return not _is_empty(self.account(address))

    def nonce(self, address: bytes) -> int:
        """How many transactions the account has sent."""
        return self.account(address).nonce

    def balance(self, address: bytes) -> int:
        """Wei that the account holds."""
        return self.account(address).balance

    def code(self, address: bytes) -> bytes:
        """The account's code; empty where it has none."""
        code_hash = self.account(address).code_hash
        if code_hash == EMPTY_CODE_HASH:
            return b""
        code = self._codes.get(code_hash)
        if code is None:
            code = self._reader.get(keyspace.CODE + code_hash)
        if code is None:
            raise LedgerError(f"code 0x{code_hash.hex()} of account 0x{address.hex()} is not stored")
        return code

    def set_nonce(self, address: bytes, nonce: int) -> None:
        """Set how many transactions the account has sent."""
        old = self.account(address)
        self._set(self._accounts, address, Account(nonce, old.balance, old.storage_root, old.code_hash))

    def set_account(self, address: bytes, account: Account) -> None:
        """Set nonce and balance at once; the rest is as it was. The balance fits 256 bits and is not negative."""
        self._set(self._accounts, address, account)

    def set_balance(self, address: bytes, wei: int) -> None:
        """Set the balance. Raises LedgerError when it does not fit 256 bits: the rules let nobody get there."""
        if not 0 <= wei <= _WORD_MAX:
            raise LedgerError(f"a balance of {wei} wei was set for 0x{address.hex()}; expected 0 to 2^256 - 1")
        old = self.account(address)
        self._set(self._accounts, address, Account(old.nonce, wei, old.storage_root, old.code_hash))

    def add_balance(self, address: bytes, wei: int) -> None:
        """Add to the balance. Raises LedgerError as `set_balance` does."""
        old = self.account(address)
        balance = old.balance + wei
        if not 0 <= balance <= _WORD_MAX:
            raise LedgerError(f"a balance of {balance} wei was set for 0x{address.hex()}; expected 0 to 2^256 - 1")
        self._set(self._accounts, address, Account(old.nonce, balance, old.storage_root, old.code_hash))

    def set_code(self, address: bytes, code: bytes) -> None:
        """Set the account's code, which is stored by its hash."""
        old = self.account(address)
        code_hash = keccak256(code)
        if code:
            self._set(self._codes, code_hash, code)
        self._set(self._accounts, address, Account(old.nonce, old.balance, old.storage_root, code_hash))

    # Storage slots of contracts

    def storage(self, address: bytes, slot: int) -> int:
        """The value of a slot; 0 where nothing was stored."""
        key = (address, slot)
        value = self._storage.get(key)
        return self._slot_read(key) if value is None else value

    def set_storage(self, address: bytes, slot: int, value: int) -> None:
        """Store `value` in a slot; 0 frees it. Raises LedgerError when it does not fit 256 bits."""
        if not 0 <= value <= _WORD_MAX:
            raise LedgerError(f"slot {slot} of 0x{address.hex()} was set to {value}; expected 0 to 2^256 - 1")
        self._set(self._storage, (address, slot), value)

    # Flat records, which no trie covers; their keys begin with `keyspace.RECORD`

    def record(self, key: bytes) -> bytes | None:
        """The flat record at `key`, or None."""
        value = self._records.get(key)
        return self._reader.get(key) if value is None else value

    def set_record(self, key: bytes, value: bytes) -> None:
        """Write a flat record. Records are written or replaced, never deleted."""
        self._set(self._records, key, value)

    def add_records(self, records: dict[bytes, bytes]) -> None:
        """Write flat records at keys that have none yet: one entry in the journal for all of them."""
        self._records |= records
        self._journal.append((self._records, records, _ADDED))

    # Final blocks, whose transactions hold what is too large to repeat

    def calldata(self, height: int, position: int) -> bytes:
        """The data of the transaction at a position (from 0) of a final block. Raises LedgerError where there is none.

        The last block and transaction are remembered, since whoever reads one ballot mostly reads its neighbours.
        """
        known_height, known_position, data = self._calldata_read
        if (height, position) != (known_height, known_position):
            if height != self._block_read[0]:
                stored = self._reader.get(block_key(height))
                if stored is None:
                    raise LedgerError(f"block {height} is not stored")
                self._block_read = height, unpack_stored(stored)[1]
                self.block_bytes_read += len(stored)
            raws = self._block_read[1]
            if position >= len(raws):
                raise LedgerError(f"block {height} has no transaction {position}")
            data = decode_transaction(raws[position]).data
            self._calldata_read = height, position, data
        return data

    # Undoing, and the end

    def snapshot(self) -> int:
        """A mark to which `revert` can return."""
        return len(self._journal)

    def revert(self, snapshot: int) -> None:
        """Undo every change since `snapshot`."""
        journal = self._journal
        if not 0 <= snapshot <= len(journal):
            raise LedgerError(f"there is no snapshot {snapshot}; the journal has {len(journal)} entries")
        while len(journal) > snapshot:
            changes, key, old = journal.pop()
            if old is _ABSENT:
                del changes[key]
            elif old is _ADDED:
                for each in key:
                    del changes[each]
            else:
                changes[key] = old

    def commit(self) -> tuple[bytes, dict[bytes, bytes]]:
        """The new state root, and all database writes: trie nodes, code, records. The overlay stays as it is.

        Empty accounts are deleted (EIP-161). Raises LedgerError when one of them has storage.
        """
        writes = {keyspace.CODE + code_hash: code for code_hash, code in self._codes.items()}
        writes |= self._records
        accounts = self._accounts | self._storage_roots(writes)
        changes: dict[bytes, bytes] = {}
        for address, account in accounts.items():
            if account == self._account_read(address):
                continue
            if not _is_empty(account):
                changes[keccak256(address)] = account.encoded()
            elif account.storage_root != patricia.EMPTY_ROOT:
                raise LedgerError(f"account 0x{address.hex()} has storage, but no nonce, balance or code")
            else:
                changes[keccak256(address)] = b""
        self.changed = Values(accounts, self._storage)
        root, nodes = patricia.update(self._node, self._root, changes)
        for node_hash, node in nodes.items():
            writes[keyspace.TRIE_NODE + node_hash] = node
        return root, writes

    def _storage_roots(self, writes: dict[bytes, bytes]) -> dict[bytes, Account]:
        """The accounts whose storage changed, with their new storage roots; new trie nodes go into `writes`."""
        changed: dict[bytes, dict[bytes, bytes]] = {}
        for (address, slot), value in self._storage.items():
            if value != self._slot_read((address, slot)):
                changed.setdefault(address, {})[slot_key(slot)] = rlp.encode(rlp.encode_int(value)) if value else b""
        accounts = {}
        for address, slots in changed.items():
            old = self.account(address)
            root, nodes = patricia.update(self._node, old.storage_root, slots)
            for node_hash, node in nodes.items():
                writes[keyspace.TRIE_NODE + node_hash] = node
            accounts[address] = Account(old.nonce, old.balance, root, old.code_hash)
        return accounts

    def _set(self, changes: dict[Any, Any], key: Any, value: Any) -> None:
        self._journal.append((changes, key, changes.get(key, _ABSENT)))
        changes[key] = value

    def _node(self, node_hash: bytes) -> bytes | None:
        return self._reader.get(keyspace.TRIE_NODE + node_hash)

    def _account_read(self, address: bytes) -> Account:
        account = self._accounts_read.get(address)
        if account is None:
            data = patricia.get(self._node, self._root, keccak256(address))
            account = EMPTY_ACCOUNT if data is None else decode_account(data)
            self._accounts_read[address] = account
        return account

    def _slot_read(self, key: tuple[bytes, int]) -> int:
        value = self._storage_read.get(key)
        if value is None:
            address, slot = key
            root = self._account_read(address).storage_root
            data = None if root == patricia.EMPTY_ROOT else patricia.get(self._node, root, slot_key(slot))
            value = 0 if data is None else rlp.decode_int(rlp.decode(data))
            self._storage_read[key] = value
        return value


class StorageProof(NamedTuple):
    """A slot, its value, and the nodes of its account's storage trie that show it."""

    slot: int
    value: int
    proof: list[bytes]


class AccountProof(NamedTuple):
    """What `eth_getProof` answers: an account, and the trie nodes that show it and some of its slots."""

    account: Account
    proof: list[bytes]
    storage: list[StorageProof]


def prove_account(reader: Reader, root: bytes, address: bytes, slots: Sequence[int]) -> AccountProof:
    """Proofs of the account at `address`, present or absent, and of its `slots`, under the state root `root`."""

    def nodes(node_hash: bytes) -> bytes | None:
        return reader.get(keyspace.TRIE_NODE + node_hash)

    state = State(reader, root)
    account = state.account(address)
    storage = [
        StorageProof(slot, state.storage(address, slot), patricia.prove(nodes, account.storage_root, slot_key(slot)))
        for slot in slots
    ]
    return AccountProof(account, patricia.prove(nodes, root, keccak256(address)), storage)


def _is_empty(account: Account) -> bool:
    return account.nonce == 0 and account.balance == 0 and account.code_hash == EMPTY_CODE_HASH
