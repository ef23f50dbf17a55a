"""The fixed addresses of the native contracts: "psephos", zeros, and a number."""

ELECTIONS = b"psephos" + bytes(12) + b"\x01"
ANCHORS = b"psephos" + bytes(12) + b"\x02"
VALIDATORS = b"psephos" + bytes(12) + b"\x03"
