"""The prefixes that divide the one flat key space of the ledger's database: a byte each, so that nothing overlaps.

The rules of the ledger write nodes, code, records and the block itself; the rest belongs to the store.
"""

TRIE_NODE = b"n"  # ‖ hash → RLP of a node of the state trie or of a contract's storage trie
CODE = b"k"  # ‖ code hash → code
RECORD = b"l"  # ‖ a contract's own key → a flat record: logs, their nodes, nullifier and record-id indexes
RECENT_IDS = b"i"  # ‖ height → the records by id that a block adds, as `node.recordindex` packs them
ID_RUN = b"s"  # ‖ number of a run (u32) ‖ first key of a page → records by id

BLOCK = b"b"  # ‖ height (u64 big-endian) → block, as `node.chain.stored` packs it
HEIGHT = b"h"  # ‖ block hash → height
CERTIFICATE = b"c"  # ‖ height → certificate
RECEIPTS = b"r"  # ‖ height → receipts
TRANSACTION = b"t"  # ‖ transaction hash → height, index
VALIDATORS = b"v"  # ‖ height → the validators that decide it
EVIDENCE = b"e"  # ‖ height, round (u32), kind, validator → equivocation
META = b"m"  # ‖ name → format version, head and the like
