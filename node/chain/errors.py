"""What can be wrong with what others send us; each type says whose fault it is."""


class PeerError(ValueError):
    """Somebody else sent bytes or a claim that breaks the rules. We are fine."""


class InvalidTransaction(PeerError):
    """A transaction that no block may contain, or that does not fit the state it is checked against.

    `reason` is geth's wording where it has one: "nonce too low", "insufficient funds for gas * price + value".
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class InvalidBlock(PeerError):
    """A block or header that breaks a rule of the ledger."""


class InvalidSignature(PeerError):
    """A signature from which no address can be recovered, or one that is not in low-s form."""


class LedgerError(RuntimeError):
    """Our own fault: the database lacks or contradicts what the ledger wrote. Nothing a peer does may raise it."""
