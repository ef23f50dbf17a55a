"""What goes wrong, as RFC 9457 problem documents: a stable code, an HTTP status, and a sentence for people."""

from typing import Any

REASON_STATUS = {
    "NULLIFIER_USED": 409,
    "RECORD_ID_TAKEN": 409,
    "CHOICE_OUTSIDE": 422,
    "NOT_ALLOWED": 422,
    "UnknownElection": 404,
    "ElectionNotOpen": 409,
    "ElectionExists": 409,
    "NotRegistrar": 403,
    "NotGateway": 403,
    "NotAllowedToCreate": 403,
    "NotCreator": 403,
    "AnchorExists": 409,
    "KeyMismatch": 409,
}

TITLES = {
    400: "Bad request",
    401: "API key needed",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request too slow",
    409: "Conflict",
    413: "Request body too large",
    415: "Unsupported media type",
    422: "Request not valid",
    429: "Too many requests",
    500: "Internal error",
    503: "Service unavailable",
}


class Problem(Exception):
    """An answer that is a problem document. `extra` members stand beside the standard ones."""

    def __init__(self, status: int, code: str, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.extra = extra

    def document(self, request_id: str) -> dict[str, Any]:
        """The JSON members."""
        return {
            "type": f"urn:psephos:problem:{self.code}",
            "title": TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
            **self.extra,
        }


def refusal(reason: str, **extra: Any) -> Problem:
    """The problem for the reason that a record was refused with: a name, and what the chain said of it."""
    name = reason.split(":")[0].split("(")[0].strip()
    return Problem(REASON_STATUS.get(name, 422), _code(name), f"The chain refuses this record: {reason}.", **extra)


def key_mismatch() -> Problem:
    """The answer of a gateway that has not the key which the election was created with."""
    detail = (
        "This gateway has not the key that the election was created with: it could count a voter twice, and knows no "
        "transaction_id of it (a record_id, or the hash of a chain transaction, it does)."
    )
    return Problem(409, "key-mismatch", detail)


def election_exists(id_: int) -> Problem:
    """The answer to who would make another election under an id that is taken."""
    return Problem(409, "election-exists", f"There is another election with the id {id_}.")


def _code(name: str) -> str:
    if name.isupper():
        return name.lower().replace("_", "-")
    return "".join("-" + char.lower() if char.isupper() and at else char.lower() for at, char in enumerate(name))
