"""The prefixes that divide the one flat key space of the ledger's database: a byte each, so that nothing overlaps.

The rules of the ledger write nodes, code, records and the block itself; the rest belongs to the store.

The letters put last what is most of the bytes and grows in the order of its keys: runs, blocks, and the rows of logs.
Between these lies next to nothing, so that LevelDB merges what is new with little that is old.
"""

TRIE_NODE = b"n"  # ‖ hash → RLP of a node of the state trie or of a contract's storage trie
CODE = b"k"  # ‖ code hash → code
HEIGHT = b"h"  # ‖ block hash → height
CERTIFICATE = b"c"  # ‖ height → certificate
RECEIPTS = b"r"  # ‖ height → receipts
TRANSACTION = b"t"  # ‖ transaction hash → height, index
VALIDATORS = b"v"  # ‖ height → the validators that decide it
EVIDENCE = b"e"  # ‖ height, round (u32), kind, validator → equivocation
META = b"m"  # ‖ name → format version, head and the like

ID_RUN = b"x"  # ‖ number of a run (u32) ‖ first key of a page → where ids stand, as `node.recordindex` packs it
BLOCK = b"y"  # ‖ height (u64 big-endian) → block, as `node.chain.stored` packs it
RECORD = b"z"  # ‖ a contract's own key → a flat record: logs and their nodes
