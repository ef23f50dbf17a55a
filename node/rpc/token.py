"""Tokens of the operators' listener, as geth's authenticated port takes them: a JWT signed with HS256 a moment ago.

Source: the execution API's engine/authentication.md; the wordings of refusals are geth's.
"""

import math

import jwt

SCHEME = "Bearer "
SECRET_BYTES = 32
AGE_MAX_S = 60  # `iat` may lie this far in the past or in the future


class BadToken(Exception):
    """A request brings no valid token; the message says what is wrong with it."""


def check_token(header: str | None, secret: bytes, *, now_s: float) -> None:
    """Check the value of an Authorization header; `now_s` is Unix time. Raises BadToken."""
    if header is None or not header.startswith(SCHEME):
        raise BadToken("missing token")
    try:
        claims = jwt.decode(
            header.removeprefix(SCHEME).strip(),
            secret,
            algorithms=["HS256"],
            # The library's clock is not ours, and it takes no token from the future, however near.
            options={"verify_iat": False, "verify_exp": False, "verify_nbf": False, "verify_aud": False},
        )
    except jwt.PyJWTError as error:
        raise BadToken(f"invalid token: {error}") from None
    issued, expires = _moment(claims.get("iat")), _moment(claims.get("exp"))
    if issued is None:
        raise BadToken("missing issued-at")
    if now_s - issued > AGE_MAX_S:
        raise BadToken(f"stale token: 'iat' is {now_s - issued:.0f} s old, at most {AGE_MAX_S}")
    if issued - now_s > AGE_MAX_S:
        raise BadToken(f"future token: 'iat' is {issued - now_s:.0f} s ahead, at most {AGE_MAX_S}")
    if claims.get("exp") is not None and (expires is None or expires < now_s):  # cast writes null for "never"
        raise BadToken("token is expired")


def _moment(claim: object) -> float | None:
    """Unix time, None where the claim is none: JSON, as it is read here, also has NaN, which is never too old."""
    if isinstance(claim, bool) or not isinstance(claim, (int, float)):
        return None
    try:
        return float(claim) if math.isfinite(claim) else None
    except OverflowError:  # an integer of more digits than a float holds
        return None


def make_token(secret: bytes, *, now_s: float) -> str:
    """A token for right now."""
    return jwt.encode({"iat": int(now_s)}, secret, algorithm="HS256")
